import type { Runtime } from "herm";
import { systemRuntime } from "#dist/runtime.js";

/** Time that stands still until something sleeps, and dice that always fall alike. */
export class TestRuntime implements Runtime {
  time = Date.UTC(2026, 0, 1);
  readonly sleeps: number[] = [];
  readonly timers: { ms: number; act: () => void }[] = [];
  #made = 0;
  #whenTimer: (() => void)[] = [];

  constructor(readonly dice = 0.5) {}

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
    this.#whenTimer.splice(0).forEach(tell => tell());
    return () => {
      const at = this.timers.indexOf(timer);
      if (at >= 0) this.timers.splice(at, 1);
    };
  }

  random(): number {
    return this.dice;
  }

  unique(): string {
    return `unique-${++this.#made}`;
  }

  /** Lets the timer of so many milliseconds run out, once there is one. */
  async fire(ms: number): Promise<void> {
    for (;;) {
      const at = this.timers.findIndex(timer => timer.ms === ms);
      const timer = at < 0 ? undefined : this.timers.splice(at, 1)[0];
      if (timer) return timer.act();
      await new Promise<void>(tell => this.#whenTimer.push(tell));
    }
  }
}

/** Waits that take a hundredth of what they should, for tests against a real server; limits stay as they are. */
export const hurried: Runtime = {
  ...systemRuntime,
  sleep: (ms, signal) => systemRuntime.sleep(ms / 100, signal),
};

/** A generator of numbers from 0 up to 1 that gives the same ones for the same seed (mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
