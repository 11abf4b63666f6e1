//! `…/skills`.

use axum::Json;
use axum::extract::State;
use herm_app::skills::{self, MAX_SKILL_BYTES, NewSkill, NewSource, Replacement, WorkspacePath};
use herm_types::error::ErrorBody;
use herm_types::skill::{Skill, SkillItem, SkillList, SkillSource};
use herm_types::{DeploymentId, Error, SkillId};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use url::Url;

use crate::auth::Auth;
use crate::error::Failure;
use crate::idempotency::Once;
use crate::input::{DeploymentPath, Faults, JsonBody, Object, Query};
use crate::router::Shared;

const MAX_NAME_CHARS: usize = 64;
pub(crate) const MAX_URL_CHARS: usize = 2048;
const MAX_PATH_CHARS: usize = 4096;
const SOURCES: [(&str, SkillSource); 3] =
    [("file", SkillSource::File), ("inline", SkillSource::Inline), ("url", SkillSource::Url)];

/// The shape of the body, for the OpenAPI document.
#[derive(utoipa::ToSchema)]
#[schema(as = NewSkill)]
#[expect(dead_code, reason = "it is the shape alone: the body is read field by field to find all its faults")]
pub(crate) struct NewSkillBody {
    /// Unique among the deployment's skills.
    #[schema(min_length = 1, max_length = 64)]
    name: String,
    source: SkillSource,
    /// With `file`: the SKILL.md in the workspace.
    #[schema(max_length = 4096)]
    path: Option<String>,
    /// With `inline`: the SKILL.md. With `file`: written to `path`.
    #[schema(max_length = 262_144)]
    content: Option<String>,
    /// With `url`: where the SKILL.md is fetched from.
    #[schema(max_length = 2048, format = "uri")]
    url: Option<String>,
}

/// The shape of the body, for the OpenAPI document.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it is the shape alone, as above")]
pub(crate) struct ReplaceSkill {
    #[schema(min_length = 1, max_length = 64)]
    name: Option<String>,
    source: Option<SkillSource>,
    #[schema(max_length = 4096)]
    path: Option<String>,
    #[schema(max_length = 262_144)]
    content: Option<String>,
    #[schema(max_length = 2048, format = "uri")]
    url: Option<String>,
}

/// Add a skill. One from a URL is fetched; the file of a `file` skill must be there, or come along as `content`.
#[utoipa::path(post, path = "/v1/deployments/{deployment_id}/skills", operation_id = "add_skill", tag = "skills",
    params(("deployment_id" = DeploymentId, Path)), request_body = NewSkillBody,
    responses((status = 201, body = SkillItem), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 413, body = ErrorBody),
        (status = 415, body = ErrorBody), (status = 422, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn add_skill(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
    once: Once,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<SkillItem>), Failure> {
    query.finish()?;
    let mut faults = Faults::default();
    let given = parse_new(Object::of_body(&body, &mut faults), &mut faults);
    faults.check()?;
    let given = given.ok_or_else(|| Error::invalid(Vec::new()))?;
    let reply = once.reply(StatusCode::CREATED);
    let item = skills::add(&shared.app, &caller, path.deployment_id, given, reply).await?;
    Ok((StatusCode::CREATED, Json(item)))
}

/// List a deployment's skills, in the order in which they were given.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/skills", operation_id = "list_skills", tag = "skills",
    params(("deployment_id" = DeploymentId, Path)),
    responses((status = 200, body = SkillList), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn list_skills(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
) -> Result<Json<SkillList>, Failure> {
    query.finish()?;
    Ok(Json(skills::list(&shared.app, &caller, path.deployment_id).await?))
}

/// Get a skill with its text.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/skills/{skill_id}", operation_id = "get_skill",
    tag = "skills", params(("deployment_id" = DeploymentId, Path), ("skill_id" = SkillId, Path)),
    responses((status = 200, body = Skill), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn get_skill(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
) -> Result<Json<Skill>, Failure> {
    query.finish()?;
    let skill_id = path.id("skill", "skill_id")?;
    Ok(Json(skills::get(&shared.app, &caller, path.deployment_id, skill_id).await?))
}

/// Replace a skill's content or source. What is left out stays; a `url` skill is fetched again.
#[utoipa::path(put, path = "/v1/deployments/{deployment_id}/skills/{skill_id}", operation_id = "replace_skill",
    tag = "skills", params(("deployment_id" = DeploymentId, Path), ("skill_id" = SkillId, Path)),
    request_body = ReplaceSkill,
    responses((status = 200, body = SkillItem), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 413, body = ErrorBody),
        (status = 415, body = ErrorBody), (status = 422, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn replace_skill(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
    JsonBody(body): JsonBody,
) -> Result<Json<SkillItem>, Failure> {
    query.finish()?;
    let skill_id = path.id("skill", "skill_id")?;
    let replacement = parse_replacement(&body)?;
    Ok(Json(skills::replace(&shared.app, &caller, path.deployment_id, skill_id, replacement).await?))
}

/// A skill that is gone.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct DeletedSkill {
    skill_id: SkillId,
    #[schema(pattern = "^deleted$")]
    status: &'static str,
}

/// Remove a skill. The file of a `file` skill stays in the workspace.
#[utoipa::path(delete, path = "/v1/deployments/{deployment_id}/skills/{skill_id}", operation_id = "delete_skill",
    tag = "skills", params(("deployment_id" = DeploymentId, Path), ("skill_id" = SkillId, Path)),
    responses((status = 200, body = DeletedSkill), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn delete_skill(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
) -> Result<Json<DeletedSkill>, Failure> {
    query.finish()?;
    let skill_id = path.id("skill", "skill_id")?;
    skills::remove(&shared.app, &caller, path.deployment_id, skill_id).await?;
    Ok(Json(DeletedSkill { skill_id, status: "deleted" }))
}

/// Reads a skill that is given, also as one of several; `None` where a fault was found.
pub(crate) fn parse_new(mut object: Object<'_>, faults: &mut Faults) -> Option<NewSkill> {
    let is_there = object.is_there();
    let name = object.required_text("name", 1..=MAX_NAME_CHARS, faults);
    let name = name.filter(|name| is_name(name, &object, faults));
    let source = object.choice("source", &SOURCES, faults);
    let fields = fields(&mut object, faults);
    let source = match source {
        None => {
            if is_there && !faults.has(&object.path_to("source")) {
                faults.add(object.path_to("source"), "is required: file, inline or url");
            }
            None
        }
        Some(source) => of_source(source, fields, &object, faults),
    };
    object.finish(faults);
    Some(NewSkill { name: name?, source: source? })
}

struct Fields {
    path: Option<WorkspacePath>,
    content: Option<String>,
    url: Option<Url>,
}

fn fields(object: &mut Object<'_>, faults: &mut Faults) -> Fields {
    let path = object.text("path", 1..=MAX_PATH_CHARS, faults).and_then(|text| {
        let parsed = WorkspacePath::parse(&text).map_err(|error| error.to_string());
        let parsed = parsed.and_then(|path| match path.is_root() {
            true => Err("must name a file".to_owned()),
            false => Ok(path),
        });
        parsed.map_err(|message| faults.add(object.path_to("path"), message)).ok()
    });
    Fields {
        path,
        content: object.text("content", 0..=MAX_SKILL_BYTES, faults),
        url: http_url(object, "url", faults),
    }
}

/// A URL that may be asked over HTTP, if it is given.
pub(crate) fn http_url(object: &mut Object<'_>, name: &'static str, faults: &mut Faults) -> Option<Url> {
    let text = object.text(name, 1..=MAX_URL_CHARS, faults)?;
    let url = Url::parse(&text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
    });
    if url.is_none() {
        faults.add(object.path_to(name), "must be an http or https URL without a user name");
    }
    url
}

/// What a source needs, and nothing that belongs to another.
fn of_source(
    source: SkillSource,
    fields: Fields,
    object: &Object<'_>,
    faults: &mut Faults,
) -> Option<NewSource> {
    let Fields { path, content, url } = fields;
    let needed = match source {
        SkillSource::File => "path",
        SkillSource::Inline => "content",
        SkillSource::Url => "url",
    };
    let given = [("path", path.is_some()), ("content", content.is_some()), ("url", url.is_some())];
    for (name, is_given) in given {
        let may_come_along = source == SkillSource::File && name == "content";
        if is_given && name != needed && !may_come_along {
            faults.add(object.path_to(name), format!("does not belong to the source {}", source.as_str()));
        }
        if !is_given && name == needed && !faults.has(&object.path_to(name)) {
            faults.add(object.path_to(name), format!("is required with the source {}", source.as_str()));
        }
    }
    match source {
        SkillSource::File => Some(NewSource::File { path: path?, content }),
        SkillSource::Inline => Some(NewSource::Inline { content: content? }),
        SkillSource::Url => Some(NewSource::Url(url?)),
    }
}

fn is_name(name: &str, object: &Object<'_>, faults: &mut Faults) -> bool {
    let is_sane = !name.contains(|letter: char| letter.is_control() || letter == '/') && name.trim() == name;
    if !is_sane {
        let message = "must not contain control characters or /, nor begin or end with a space";
        faults.add(object.path_to("name"), message);
    }
    is_sane
}

fn parse_replacement(body: &Value) -> Result<Replacement, Error> {
    let mut faults = Faults::default();
    let mut object = Object::of_body(body, &mut faults);
    let name = object.text("name", 1..=MAX_NAME_CHARS, &mut faults);
    let name = name.filter(|name| is_name(name, &object, &mut faults));
    let source = object.choice("source", &SOURCES, &mut faults);
    let Fields { path, content, url } = fields(&mut object, &mut faults);
    object.finish(&mut faults);
    faults.check()?;
    Ok(Replacement { name, source, path, content, url })
}
