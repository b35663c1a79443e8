import amqplib from "amqplib";

const url = process.env.RMQARQ_URL ?? "amqp://guest:guest@localhost:5672/";
const queue = "my_queue";

const connection = await amqplib.connect(url);
const channel = await connection.createConfirmChannel();
let returned = 0;
channel.on("return", () => (returned += 1)); // there was no queue to put it in

function send(body, properties = {}) {
  channel.publish("", queue, Buffer.from(JSON.stringify(body)), {
    contentType: "application/json",
    persistent: true,
    mandatory: true,
    ...properties,
  });
}

// the task's name is all that it takes
send({ task: "process_data", args: [4001, "update"] });

// name and job id as properties, arguments by name
const kwargs = { data_id: 4002, action: "update" };
send({ kwargs }, { type: "process_data", correlationId: "node-4002" });

// later, and not at all when it is more than an hour late
const soon = { eta: Date.now() / 1000 + 1.5, expires: 3600 };
send({ task: "process_data", args: [4003, "update"], ...soon });

await channel.waitForConfirms(); // rejects when the queue takes no more
await connection.close();
if (returned) {
  console.error(`there is no queue ${queue}: start a worker once`);
  process.exitCode = 1;
} else {
  console.log("sent 3");
}
