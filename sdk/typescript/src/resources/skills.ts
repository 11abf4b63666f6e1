import { paged, type PagePromise } from "../page.js";
import { withLocalFile } from "../skill-files.js";
import { path, type RequestOptions, type Transport } from "../transport.js";
import type { DeletedSkill, Skill, SkillParams, SkillUpdateParams, SkillWithContent } from "../types.js";

/**
 * The skills of a deployment: instructions for certain kinds of tasks. A change takes effect with the agent's next run.
 */
export class Skills {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /**
   * Adds a skill to a deployment. If the path of a `file` skill exists on this machine, the file's text is sent with
   * the request.
   */
  async add(deploymentId: string, params: SkillParams, options?: RequestOptions): Promise<Skill> {
    return this.#transport.json({
      method: "POST",
      path: path`/v1/deployments/${deploymentId}/skills`,
      json: await withLocalFile(params),
      options,
    });
  }

  /** Lists a deployment's skills, without their texts. */
  list(deploymentId: string, options?: RequestOptions): PagePromise<Skill> {
    return paged(cursor =>
      this.#transport.json({
        method: "GET",
        path: path`/v1/deployments/${deploymentId}/skills`,
        query: { cursor },
        options,
      }),
    );
  }

  /** Returns a skill with its text. */
  get(deploymentId: string, skillId: string, options?: RequestOptions): Promise<SkillWithContent> {
    return this.#transport.json({
      method: "GET",
      path: path`/v1/deployments/${deploymentId}/skills/${skillId}`,
      options,
    });
  }

  /** Replaces the text or the source of a skill. The server fetches a `url` skill again. */
  async update(
    deploymentId: string,
    skillId: string,
    params: SkillUpdateParams,
    options?: RequestOptions,
  ): Promise<Skill> {
    return this.#transport.json({
      method: "PUT",
      path: path`/v1/deployments/${deploymentId}/skills/${skillId}`,
      json: await withLocalFile(params),
      options,
    });
  }

  /** Removes a skill from a deployment. */
  remove(deploymentId: string, skillId: string, options?: RequestOptions): Promise<DeletedSkill> {
    return this.#transport.json({
      method: "DELETE",
      path: path`/v1/deployments/${deploymentId}/skills/${skillId}`,
      options,
      whenDeleted: { skill_id: skillId, status: "deleted" },
    });
  }
}
