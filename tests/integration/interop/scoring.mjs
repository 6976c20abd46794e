// A client of the scoring service on @grpc/grpc-js.  It reads the contract from proto/ itself, and knows no line of Python.

import { require, told, say, done } from "./told.mjs";

const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");

// Names as in the contract, and nothing that was not on the wire.
const READ_AS = { keepCase: true, longs: String, enums: String };
const NO_LIMIT = { "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1 };
const TIMEOUT_MS = 20_000;

const contract = grpc.loadPackageDefinition(
  protoLoader.loadSync("fraudsdk/v1/scoring_service.proto", { ...READ_AS, includeDirs: [told.proto] }),
).fraudsdk.v1;
// Standard protocols, as sets of descriptors.
const standard = protoLoader.loadFileDescriptorSetFromBuffer(Buffer.from(told.standard, "base64"), READ_AS);
const { grpc: wellKnown } = grpc.loadPackageDefinition(standard);

function clientOf(Service, { authority = null } = {}) {
  const credentials =
    authority === null ? grpc.credentials.createInsecure() : grpc.credentials.createSsl(Buffer.from(authority));
  return new Service(told.target, credentials, NO_LIMIT);
}

function metadataOf(token) {
  const metadata = new grpc.Metadata();
  if (token !== undefined) metadata.set("authorization", `Bearer ${token}`);
  return metadata;
}

// The answer to a call, or how it failed.
function ask(client, method, request, { timeoutMs = TIMEOUT_MS, token, cancelled = false } = {}) {
  return new Promise((resolve) => {
    const options = { deadline: Date.now() + timeoutMs };
    const call = client[method](request, metadataOf(token), options, (error, answer) =>
      resolve(error === null ? { answer } : failureOf(error)),
    );
    if (cancelled) setTimeout(() => call.cancel(), cancelled);
  });
}

// All messages of a stream; `ends` says when enough of them have come.
function read(call, ends = () => false) {
  return new Promise((resolve) => {
    const answers = [];
    call.on("data", (message) => {
      answers.push(message);
      if (ends(answers)) call.cancel();
    });
    call.on("end", () => resolve({ answers }));
    call.on("error", (error) => resolve({ answers, ...failureOf(error) }));
  });
}

function failureOf(error) {
  const failure = { code: error.code, message: error.details };
  const [packed] = error.metadata?.get("grpc-status-details-bin") ?? [];
  if (packed !== undefined) failure.details = detailsOf(packed);
  return failure;
}

// google.rpc.Status, and each of its details that is known by the type that it names.
function detailsOf(packed) {
  const read = (type, octets) => typeOf(type).deserialize(octets);
  return read("google.rpc.Status", packed).details.map(({ type_url, value }) => {
    const type = type_url.split("/").pop();
    return { type, ...read(type, value) };
  });
}

function typeOf(name) {
  return standard[name] ?? contract[name.split(".").pop()];
}

// An object of JSON is no message yet: what a service would be asked for is written and read once.
const cases = {
  async score({ requests }) {
    const client = clientOf(contract.ScoringService);
    const answers = [];
    for (const request of requests) answers.push(await ask(client, "Score", request));
    return { answers };
  },

  async call({ method, request, ...how }) {
    return ask(clientOf(contract.ScoringService, how), method, request, how);
  },

  async stream({ requests }) {
    const call = clientOf(contract.ScoringService).ScoreStream(metadataOf(), { deadline: Date.now() + TIMEOUT_MS });
    const all = read(call);
    for (const request of requests) call.write(request);
    call.end();
    return all;
  },

  // A client that goes away in the middle of what it asked for.
  async cancelledStream({ requests, after }) {
    const call = clientOf(contract.ScoringService).ScoreStream(metadataOf());
    const all = read(call, (answers) => answers.length === after);
    for (const request of requests) call.write(request);
    return { ...(await all), answers: undefined };
  },

  async unimplemented() {
    const client = clientOf(contract.ScoringService);
    return new Promise((resolve) => {
      const plain = (octets) => octets;
      const path = "/fraudsdk.v1.ScoringService/Forget";
      client.makeUnaryRequest(path, plain, plain, Buffer.alloc(0), metadataOf(), {}, (error) =>
        resolve(failureOf(error)),
      );
    });
  },

  async health({ service }) {
    return ask(clientOf(wellKnown.health.v1.Health), "Check", { service });
  },

  // Says each status when it comes; the second is that of a service that stops.
  async watch({ service }) {
    const call = clientOf(wellKnown.health.v1.Health).Watch({ service });
    call.on("data", (message) => say("status", message));
    return { ...(await read(call, (answers) => answers.length === 2)), answers: undefined };
  },

  // What the service says of itself is enough to call it.
  async reflection({ symbol, method, request }) {
    const [{ list_services_response: listed }] = await reflected({ list_services: "" });
    const [{ file_descriptor_response: described }] = await reflected({ file_containing_symbol: symbol });
    const files = described.file_descriptor_proto;
    const found = protoLoader.loadFileDescriptorSetFromBuffer(setOf(files), READ_AS);
    const Service = grpc.loadPackageDefinition(found).fraudsdk.v1.ScoringService;
    const names = listed.service.map(({ name }) => name);
    return { services: names, ...(await ask(clientOf(Service), method, request)) };
  },
};

async function reflected(request) {
  const Reflection = wellKnown.reflection.v1alpha.ServerReflection;
  const call = clientOf(Reflection).ServerReflectionInfo();
  const all = read(call);
  call.write(request);
  call.end();
  return (await all).answers;
}

// A FileDescriptorSet of files that are messages already: field 1, each with its length before it.
function setOf(files) {
  const parts = files.flatMap((file) => {
    const length = [];
    let left = file.length;
    for (; left > 127; left >>>= 7) length.push((left & 127) | 128);
    return [Buffer.from([10, ...length, left]), file];
  });
  return Buffer.concat(parts);
}

for (const { name, does, ...args } of told.cases) say(name, await cases[does](args));
done();
