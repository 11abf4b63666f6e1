import { type FinishedRun, sendAndWait, type SendAndWaitOptions } from "../send-and-wait.js";
import { path, type RequestOptions, type Transport } from "../transport.js";
import type { MessageParams, SentMessage } from "../types.js";

/** What is said to an agent. */
export class Messages {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Sends a message. The answer comes at once; the work on it streams as events. */
  send(deploymentId: string, params: MessageParams, options?: RequestOptions): Promise<SentMessage> {
    return this.#transport.json({
      method: "POST",
      path: path`/v1/deployments/${deploymentId}/messages`,
      json: params,
      options,
    });
  }

  /**
   * Sends a message and waits until the run that works on it is done, through broken connections and a restarting
   * server. Gives the run, and as `text` the last thing the agent said in it.
   *
   * @throws {@link RunFailedError} if the run ends in any other way, {@link WaitTimeoutError} if it takes too long.
   */
  sendAndWait(
    deploymentId: string,
    params: MessageParams,
    options: SendAndWaitOptions = {},
  ): Promise<FinishedRun> {
    return sendAndWait(this.#transport, deploymentId, params, options);
  }
}
