// Payments to Kafka and their predictions back, for k6 with the extension xk6-kafka v2
// (https://github.com/mostafa/xk6-kafka; its v1 has Writer and Reader instead of Producer and Consumer):
//
//   xk6 build --with github.com/mostafa/xk6-kafka/v2@v2.1.0
//   ./k6 run -e BROKER=localhost:9092 -e RATE=1000 -e DURATION=60s loadtest/k6/kafka.js
//
// NOT RUN by this project's tests: the extension is not in the Go module proxy that they can reach. It was written
// after the sources, type definitions and examples of v2.1.0; `node --check` and k6's parser have seen its syntax. For
// a load that is tested here, see loadtest/locustfile.py and `weir bench latency`.

import { check } from "k6";
import exec from "k6/execution";
import { Counter, Trend } from "k6/metrics";
import {
  BALANCER_CRC32,
  CODEC_LZ4,
  Consumer,
  ISOLATION_LEVEL_READ_COMMITTED,
  Producer,
  START_OFFSETS_LAST_OFFSET,
} from "k6/x/kafka";

const brokers = (__ENV.BROKER || "localhost:9092").split(",");
const topic = __ENV.TOPIC || "payments";
const predictions = __ENV.PREDICTIONS || "payments.predictions";
const rate = Number(__ENV.RATE || 100); // payments a second
const duration = __ENV.DURATION || "30s";
const batch = 10; // payments of an iteration
const users = 10000;
const run = `k6-${Date.now()}`;

const latency = new Trend("weir_prediction_ms", true); // from the payment's time to its prediction here
const received = new Counter("weir_predictions");

export const options = {
  scenarios: {
    send: {
      executor: "constant-arrival-rate",
      exec: "send",
      rate: Math.max(1, Math.round(rate / batch)),
      timeUnit: "1s",
      duration: duration,
      preAllocatedVUs: 10,
      maxVUs: 100,
    },
    receive: { executor: "constant-vus", exec: "receive", vus: 1, duration: duration, gracefulStop: "10s" },
  },
  thresholds: {
    kafka_writer_error_count: ["count == 0"],
    kafka_reader_error_count: ["count == 0"],
    weir_prediction_ms: [`p(99) < ${__ENV.P99_MS || 1000}`],
    weir_predictions: ["count > 0"],
    checks: ["rate == 1"],
  },
};

// The key decides the partition as librdkafka does it: what the example declares.
const producer = new Producer({ brokers, topic, balancer: BALANCER_CRC32, compression: CODEC_LZ4 });
const consumer = new Consumer({
  brokers,
  groupId: run,
  groupTopics: [predictions],
  startOffset: START_OFFSETS_LAST_OFFSET,
  isolationLevel: ISOLATION_LEVEL_READ_COMMITTED,
  maxWait: "500ms",
});

export function send() {
  const messages = [];
  for (let i = 0; i < batch; i++) {
    const user = "u" + String(Math.floor(Math.random() * users)).padStart(5, "0");
    const now = Date.now();
    messages.push({
      key: user,
      value: JSON.stringify({
        payment_id: `${run}-${exec.scenario.iterationInTest}-${i}`,
        user_id: user,
        merchant: "m001",
        amount: Math.round(Math.exp(3.2 + 1.1 * (Math.random() - 0.5)) * 100) / 100,
        ts: now,
      }),
      time: new Date(now),
    });
  }
  producer.produce({ messages });
}

export function receive() {
  for (const message of consumer.consume({ maxMessages: 500, expectTimeout: true })) {
    const prediction = JSON.parse(String.fromCharCode(...message.value));
    if (!prediction.id.startsWith("k6-")) {
      continue; // of somebody else's payment
    }
    latency.add(Date.now() - prediction.time);
    received.add(1);
    check(prediction, { "the features it used are logged": (p) => "user_id_count_1h" in p.features });
  }
}

export function teardown() {
  producer.close();
  consumer.close();
}
