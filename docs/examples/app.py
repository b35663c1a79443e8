from rmqarq import App, Context, Reject, Retry

app = App(queue="my_queue")


@app.task(max_retries=3, timeout=60)
async def process_data(ctx: Context, data_id: int, action: str) -> dict[str, int]:
    print(f"{action} {data_id}, attempt {ctx.job_try}")
    if action == "sync" and ctx.job_try == 1:
        raise Retry(defer=2)  # again in two seconds
    if action == "erase":
        raise Reject("erasing is not allowed")  # to the dead letters, no retry
    return {"data_id": data_id}
