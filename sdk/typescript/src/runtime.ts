/** Time and randomness, which tests choose. */
export interface Runtime {
  /** Milliseconds since 1970. */
  now(): number;
  /** Resolves after so long, or as soon as the signal aborts. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
  /** Calls `act` after so long, unless what it returns is called before. */
  after(ms: number, act: () => void): () => void;
  /** A number from 0 up to, and without, 1. */
  random(): number;
  /** A text that no other call has ever given. */
  unique(): string;
}

/** The real clock and the real dice. */
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
    // Node.js 18 and pages without HTTPS lack it. The server scopes these texts to the key: nobody gains by guessing.
    const part = () =>
      Math.floor(Math.random() * 0x1_0000_0000)
        .toString(16)
        .padStart(8, "0");
    return globalThis.crypto?.randomUUID?.() ?? part() + part() + part() + part();
  },
};
