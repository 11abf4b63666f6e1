import type { Runtime } from "herm";
import { systemRuntime } from "#dist/runtime.js";

/** A runtime with simulated time, which advances only when code sleeps. Its random numbers are constant. */
export class TestRuntime implements Runtime {
  time = Date.UTC(2026, 0, 1);
  readonly sleeps: number[] = [];
  readonly timers: { ms: number; act: () => void }[] = [];
  #uniqueCount = 0;
  #timerListeners: (() => void)[] = [];

  constructor(readonly randomValue = 0.5) {}

  now(): number {
    return this.time;
  }

  async sleep(ms: number): Promise<void> {
    this.sleeps.push(ms);
    this.time += ms;
  }

  after(ms: number, act: () => void): () => void {
    const timer = { ms, act };
    this.timers.push(timer);
    this.#timerListeners.splice(0).forEach(notify => notify());
    return () => {
      const at = this.timers.indexOf(timer);
      if (at >= 0) this.timers.splice(at, 1);
    };
  }

  random(): number {
    return this.randomValue;
  }

  unique(): string {
    return `unique-${++this.#uniqueCount}`;
  }

  /** Fires the timer with this duration. If no such timer exists, waits until one is created. */
  async fire(ms: number): Promise<void> {
    for (;;) {
      const at = this.timers.findIndex(timer => timer.ms === ms);
      const timer = at < 0 ? undefined : this.timers.splice(at, 1)[0];
      if (timer) return timer.act();
      await new Promise<void>(notify => this.#timerListeners.push(notify));
    }
  }
}

/**
 * A runtime for tests against a real server. It shortens sleeps, for example before retries, to a hundredth. Timeouts
 * have their normal duration.
 */
export const hurried: Runtime = {
  ...systemRuntime,
  sleep: (ms, signal) => systemRuntime.sleep(ms / 100, signal),
};

/** Returns a random number generator (mulberry32) for numbers from 0 to 1. The same seed produces the same numbers. */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
