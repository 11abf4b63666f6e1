import { paged, type PagePromise } from "../page.js";
import { withLocalFile } from "../skill-files.js";
import { path, type RequestOptions, type Transport } from "../transport.js";
import type { DeletedSkill, Skill, SkillParams, SkillUpdateParams, SkillWithContent } from "../types.js";

/** What an agent knows how to do: texts that it loads when it needs them. Its next run sees a change. */
export class Skills {
  readonly #transport: Transport;

  constructor(transport: Transport) {
    this.#transport = transport;
  }

  /** Gives the agent a skill. Of a `file` skill whose path is on this machine's disk, the text is sent along. */
  async add(deploymentId: string, params: SkillParams, options?: RequestOptions): Promise<Skill> {
    return this.#transport.json({
      method: "POST",
      path: path`/v1/deployments/${deploymentId}/skills`,
      json: await withLocalFile(params),
      options,
    });
  }

  /** A deployment's skills, without their texts. */
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

  /** A skill with its text. */
  get(deploymentId: string, skillId: string, options?: RequestOptions): Promise<SkillWithContent> {
    return this.#transport.json({
      method: "GET",
      path: path`/v1/deployments/${deploymentId}/skills/${skillId}`,
      options,
    });
  }

  /** Replaces a skill's text or source; a `url` skill is fetched again. */
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

  /** Takes a skill away. */
  remove(deploymentId: string, skillId: string, options?: RequestOptions): Promise<DeletedSkill> {
    return this.#transport.json({
      method: "DELETE",
      path: path`/v1/deployments/${deploymentId}/skills/${skillId}`,
      options,
      whenGone: { skill_id: skillId, status: "deleted" },
    });
  }
}
