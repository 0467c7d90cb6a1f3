// Load on `weir features serve examples.payments.pipeline:pipeline`, from outside and at a steady rate (open loop).
//
//   k6 run loadtest/k6/features.js
//   k6 run -e URL=http://127.0.0.1:8324 -e RATE=200 -e ENTITIES=100 -e DURATION=60s loadtest/k6/features.js
//
// Plain k6, without extensions. It ends with an error where a threshold is crossed.

import http from "k6/http";
import { check } from "k6";
import { Counter } from "k6/metrics";

const url = __ENV.URL || "http://127.0.0.1:8321";
const rate = Number(__ENV.RATE || 50); // requests a second
const size = Number(__ENV.ENTITIES || 10); // of a request
const users = Number(__ENV.USERS || 10000); // whom the payments example knows: u00000 and on
const states = ["present", "missing", "expired", "rebuilding"];
const values = new Counter("weir_values"); // by state

export const options = {
  scenarios: {
    features: {
      executor: "constant-arrival-rate",
      rate: rate,
      timeUnit: "1s",
      duration: __ENV.DURATION || "30s",
      preAllocatedVUs: Math.max(2, Math.min(rate, 100)),
      maxVUs: Math.max(10, Math.min(2 * rate, 500)),
    },
  },
  thresholds: {
    http_req_failed: ["rate < 0.001"],
    http_req_duration: [`p(99) < ${__ENV.P99_MS || 50}`],
    checks: ["rate == 1"],
    dropped_iterations: ["count == 0"], // else the rate was not kept
    "weir_values{state:rebuilding}": ["count == 0"],
  },
  summaryTrendStats: ["med", "p(90)", "p(99)", "max"],
};

export function setup() {
  const answer = http.get(`${url}/health/ready`);
  if (answer.status !== 200) {
    throw new Error(`${url} is not ready: ${answer.status} ${answer.body}`);
  }
}

export default function () {
  const entities = [];
  for (let i = 0; i < size; i++) {
    entities.push({ user_id: "u" + String(Math.floor(Math.random() * users)).padStart(5, "0") });
  }
  const answer = http.post(`${url}/features`, JSON.stringify({ entities: entities }), {
    headers: { "content-type": "application/json" },
  });
  const found = answer.status === 200 ? answer.json().results : [];
  check(answer, {
    "status is 200": (r) => r.status === 200,
    "every entity is answered, in order": () =>
      found.length === size && found.every((one, i) => one.entity.user_id === entities[i].user_id),
    "every value has a state": () =>
      found.every((one) => Object.values(one.states).every((state) => states.includes(state))),
  });
  for (const one of found) {
    for (const state of Object.values(one.states)) {
      values.add(1, { state: state });
    }
  }
}
