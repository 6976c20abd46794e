// A producer of transactions and a consumer of alerts on kafkajs.

import { require, told, say, done } from "./told.mjs";

const { Kafka, Partitioners, CompressionCodecs, CompressionTypes, logLevel } = require("kafkajs");
const lz4 = require("lz4js");

// Alerts are compressed by LZ4, which kafkajs knows of and leaves to its user.
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async ({ buffer }) => Buffer.from(lz4.compress(buffer)),
  decompress: async (buffer) => Buffer.from(lz4.decompress(buffer)),
});

const kafka = new Kafka({ clientId: "interop", brokers: [told.bootstrap], logLevel: logLevel.ERROR });

const cases = {
  // Which partition a message goes to is left to the client: as Java's, for those who are not told otherwise.
  async produce({ topic, messages }) {
    const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner });
    await producer.connect();
    await producer.send({ topic, acks: -1, messages });
    await producer.disconnect();
    return { n: messages.length };
  },

  // Everything in a topic until there are so many.
  async consume({ topic, n }) {
    const consumer = kafka.consumer({ groupId: "interop" });
    const found = [];
    await consumer.connect();
    await consumer.subscribe({ topic, fromBeginning: true });
    await new Promise((resolve, reject) => {
      consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error));
      const eachMessage = async ({ partition, message }) => {
        found.push({ partition, key: message.key.toString(), value: message.value.toString() });
        if (found.length === n) resolve();
      };
      consumer.run({ eachMessage }).catch(reject);
    });
    await consumer.disconnect();
    return { found };
  },
};

for (const { name, does, ...args } of told.cases) say(name, await cases[does](args));
done();
