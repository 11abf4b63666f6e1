import { type FinishedRun, sendAndWait, type SendAndWaitOptions } from "../send-and-wait.js";
import { path, type RequestOptions, type Transport } from "../transport.js";
import type { MessageParams, SentMessage } from "../types.js";

/** Messages to an agent. */
export class Messages {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Sends a message and returns immediately. The agent's work and reply are published as events. */
  send(deploymentId: string, params: MessageParams, options?: RequestOptions): Promise<SentMessage> {
    return this.#transport.json({
      method: "POST",
      path: path`/v1/deployments/${deploymentId}/messages`,
      json: params,
      options,
    });
  }

  /**
   * Sends a message and waits until its run ends. The wait survives broken connections and restarts of the server.
   * Returns the completed run, with the content of the agent's last message as `text`.
   *
   * @throws {@link RunFailedError} if the run fails or is cancelled, {@link WaitTimeoutError} after the timeout.
   */
  sendAndWait(
    deploymentId: string,
    params: MessageParams,
    options: SendAndWaitOptions = {},
  ): Promise<FinishedRun> {
    return sendAndWait(this.#transport, deploymentId, params, options);
  }
}
