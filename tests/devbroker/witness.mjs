// the round of test_witnesses.py, with amqplib
import amqplib from "amqplib";

const connection = await amqplib.connect(process.env.RMQARQ_URL);
const channel = await connection.createConfirmChannel();
const options = { deadLetterExchange: "", deadLetterRoutingKey: "node-dead" };
await channel.assertQueue("node-dead", { durable: true });
await channel.assertQueue("node", { durable: true, ...options });

async function send(body, properties = {}) {
  channel.publish("", "node", Buffer.from(body), { persistent: true, ...properties });
  await channel.waitForConfirms();
}

async function get(queue) {
  for (;;) {
    const message = await channel.get(queue);
    if (message) return message;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

for (const body of ["1", "2", "3"]) await send(body);
const first = await get("node");
channel.ack(first);

const delivered = [];
await new Promise(async (resolve) => {
  const seen = (message) => {
    const { redelivered } = message.fields;
    delivered.push([message.content.toString(), redelivered]);
    if (message.content.toString() === "2") channel.nack(message, false, false);
    else if (!redelivered) channel.nack(message, false, true);
    else {
      channel.ack(message);
      resolve();
    }
  };
  await channel.consume("node", seen, { consumerTag: "c" });
});
await channel.cancel("c");

await send("4", { expiration: "20" });
const dead = [];
while (dead.length < 2) {
  const message = await get("node-dead");
  channel.ack(message);
  const { reason } = message.properties.headers["x-death"][0];
  dead.push([message.content.toString(), reason]);
}
await connection.close();
console.log(JSON.stringify([first.content.toString(), delivered, dead]));
