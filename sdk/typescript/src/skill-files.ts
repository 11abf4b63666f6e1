import { readLocalFile } from "./environment.js";
import type { SkillParams } from "./types.js";

/** For a skill with source `file`, adds the text of the file as `content` if the file exists on this machine. */
export async function withLocalFile<S extends Partial<SkillParams>>(skill: S): Promise<S> {
  if (skill.source !== "file" || skill.path === undefined || skill.content !== undefined) return skill;
  const content = await readLocalFile(skill.path);
  return content === undefined ? skill : { ...skill, content };
}

/** Applies {@link withLocalFile} to each skill of a request body. */
export async function withLocalFiles<B extends { skills?: SkillParams[] }>(body: B): Promise<B> {
  if (!Array.isArray(body.skills)) return body;
  return { ...body, skills: await Promise.all(body.skills.map(withLocalFile)) };
}
