/** The clock, timers and random numbers that this library uses. Tests replace them. */
export interface Runtime {
  /** Returns the current time in milliseconds since 1970. */
  now(): number;
  /** Resolves after `ms` milliseconds, or as soon as the signal is aborted. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** Calls `act` after `ms` milliseconds. Returns a function that cancels the timer. */
  after(ms: number, act: () => void): () => void;
  /** Returns a random number from 0 (inclusive) to 1 (exclusive). */
  random(): number;
  /** Returns a unique string, which is used as an idempotency key. */
  unique(): string;
}

/** The runtime that is used outside of tests, with the system clock and real random numbers. */
export const systemRuntime: Runtime = {
  now: () => Date.now(),
  after(ms, act) {
    const timer = setTimeout(act, ms);
    return () => clearTimeout(timer);
  },
  sleep(ms, signal) {
    return new Promise(resolve => {
      if (signal?.aborted) return resolve();
      const done = () => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      signal?.addEventListener("abort", done);
    });
  },
  random: () => Math.random(),
  unique() {
    // `randomUUID` is missing in Node.js 18 and in pages without HTTPS. The fallback need not be cryptographically
    // random, because an idempotency key only has to be unique among the requests of one API key.
    const part = () =>
      Math.floor(Math.random() * 0x1_0000_0000)
        .toString(16)
        .padStart(8, "0");
    return globalThis.crypto?.randomUUID?.() ?? part() + part() + part() + part();
  },
};
