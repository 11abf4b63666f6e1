import { readLocalFile } from "./environment.js";
import type { SkillParams } from "./types.js";

/** The skill, with the text of its file if it names one that is on this machine's disk. */
export async function withLocalFile<S extends Partial<SkillParams>>(skill: S): Promise<S> {
  if (skill.source !== "file" || skill.path === undefined || skill.content !== undefined) return skill;
  const content = await readLocalFile(skill.path);
  return content === undefined ? skill : { ...skill, content };
}

/** A body with skills in it, each as {@link withLocalFile} has it. */
export async function withLocalFiles<B extends { skills?: SkillParams[] }>(body: B): Promise<B> {
  if (!Array.isArray(body.skills)) return body;
  return { ...body, skills: await Promise.all(body.skills.map(withLocalFile)) };
}
