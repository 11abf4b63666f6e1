//! `…/skills`: adds, lists, replaces and deletes the skills of a deployment.

use axum::Json;
use axum::extract::State;
use herm_app::skills::{self, MAX_SKILL_BYTES, NewSkill, NewSource, SkillPatch, WorkspacePath};
use herm_types::error::ErrorBody;
use herm_types::skill::{Skill, SkillItem, SkillList, SkillSource};
use herm_types::{DeploymentId, Error, SkillId};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;
use url::Url;

use crate::auth::Auth;
use crate::error::Failure;
use crate::idempotency::OptionalClaim;
use crate::input::{DeploymentPath, FieldErrors, JsonBody, Object, Query};
use crate::state::ApiState;

const MAX_NAME_CHARS: usize = 64;
pub(crate) const MAX_URL_CHARS: usize = 2048;
const MAX_PATH_CHARS: usize = 4096;
const SOURCES: [(&str, SkillSource); 3] =
    [("file", SkillSource::File), ("inline", SkillSource::Inline), ("url", SkillSource::Url)];

/// A skill to add to a deployment.
#[derive(utoipa::ToSchema)]
#[schema(as = NewSkill)]
#[expect(
    dead_code,
    reason = "it only describes the schema; the body is parsed field by field to report all errors"
)]
pub(crate) struct NewSkillBody {
    /// The name of the skill, unique within the deployment.
    #[schema(min_length = 1, max_length = 64)]
    name: String,
    source: SkillSource,
    /// The path of the SKILL.md, relative to the workspace root. Required if `source` is `file`.
    #[schema(max_length = 4096)]
    path: Option<String>,
    /// The content of the SKILL.md. Required if `source` is `inline`. Optional if `source` is `file`; if present, the
    /// content is written to `path`.
    #[schema(max_length = 262_144)]
    content: Option<String>,
    /// The URL of the SKILL.md. Required if `source` is `url`.
    #[schema(max_length = 2048, format = "uri")]
    url: Option<String>,
}

/// Changes to a skill. Fields that are absent are unchanged.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it only describes the schema, as above")]
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

/// Add a skill to a deployment.
///
/// If `source` is `url`, the SKILL.md is fetched immediately. If `source` is `file`, the file must exist in the
/// workspace, unless the request has `content` to write to it.
#[utoipa::path(post, path = "/v1/deployments/{deployment_id}/skills", operation_id = "add_skill", tag = "skills",
    params(("deployment_id" = DeploymentId, Path)), request_body = NewSkillBody,
    responses((status = 201, body = SkillItem), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 413, body = ErrorBody),
        (status = 415, body = ErrorBody), (status = 422, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn add_skill(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
    claim: OptionalClaim,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<SkillItem>), Failure> {
    query.finish()?;
    let mut errors = FieldErrors::default();
    let skill = parse_new(Object::from_body(&body, &mut errors), &mut errors);
    errors.check()?;
    let skill = skill.ok_or_else(|| Error::invalid(Vec::new()))?;
    let reply = claim.reply(StatusCode::CREATED);
    let item = skills::add(&state.app, &caller, path.deployment_id, skill, reply).await?;
    Ok((StatusCode::CREATED, Json(item)))
}

/// List a deployment's skills, in the order in which they were added.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/skills", operation_id = "list_skills", tag = "skills",
    params(("deployment_id" = DeploymentId, Path)),
    responses((status = 200, body = SkillList), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn list_skills(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
) -> Result<Json<SkillList>, Failure> {
    query.finish()?;
    Ok(Json(skills::list(&state.app, &caller, path.deployment_id).await?))
}

/// Get a skill with the content of its SKILL.md.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/skills/{skill_id}", operation_id = "get_skill",
    tag = "skills", params(("deployment_id" = DeploymentId, Path), ("skill_id" = SkillId, Path)),
    responses((status = 200, body = Skill), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn get_skill(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
) -> Result<Json<Skill>, Failure> {
    query.finish()?;
    let skill_id = path.id("skill", "skill_id")?;
    Ok(Json(skills::get(&state.app, &caller, path.deployment_id, skill_id).await?))
}

/// Replace the name, content or source of a skill.
///
/// Fields that are absent are unchanged. If `source` is `url`, the SKILL.md is fetched again.
#[utoipa::path(put, path = "/v1/deployments/{deployment_id}/skills/{skill_id}", operation_id = "replace_skill",
    tag = "skills", params(("deployment_id" = DeploymentId, Path), ("skill_id" = SkillId, Path)),
    request_body = ReplaceSkill,
    responses((status = 200, body = SkillItem), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody), (status = 413, body = ErrorBody),
        (status = 415, body = ErrorBody), (status = 422, body = ErrorBody), (status = 503, body = ErrorBody)))]
pub(crate) async fn replace_skill(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
    JsonBody(body): JsonBody,
) -> Result<Json<SkillItem>, Failure> {
    query.finish()?;
    let skill_id = path.id("skill", "skill_id")?;
    let replacement = parse_replacement(&body)?;
    Ok(Json(skills::replace(&state.app, &caller, path.deployment_id, skill_id, replacement).await?))
}

/// A deleted skill.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct DeletedSkill {
    skill_id: SkillId,
    #[schema(pattern = "^deleted$")]
    status: &'static str,
}

/// Delete a skill. If its source is `file`, the SKILL.md remains in the workspace.
#[utoipa::path(delete, path = "/v1/deployments/{deployment_id}/skills/{skill_id}", operation_id = "delete_skill",
    tag = "skills", params(("deployment_id" = DeploymentId, Path), ("skill_id" = SkillId, Path)),
    responses((status = 200, body = DeletedSkill), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn delete_skill(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
) -> Result<Json<DeletedSkill>, Failure> {
    query.finish()?;
    let skill_id = path.id("skill", "skill_id")?;
    skills::remove(&state.app, &caller, path.deployment_id, skill_id).await?;
    Ok(Json(DeletedSkill { skill_id, status: "deleted" }))
}

/// Parses the JSON object that describes a skill to add. If it is invalid, adds field errors and returns `None`.
pub(crate) fn parse_new(mut object: Object<'_>, errors: &mut FieldErrors) -> Option<NewSkill> {
    let is_object = object.is_object();
    let name = object.required_string("name", 1..=MAX_NAME_CHARS, errors);
    let name = name.filter(|name| check_name(name, &object, errors));
    let source = object.choice("source", &SOURCES, errors);
    let fields = fields(&mut object, errors);
    let source = match source {
        None => {
            if is_object && !errors.has(&object.path_to("source")) {
                errors.add(object.path_to("source"), "is required; must be one of: `file`, `inline`, `url`");
            }
            None
        }
        Some(source) => build_source(source, fields, &object, errors),
    };
    object.finish(errors);
    Some(NewSkill { name: name?, source: source? })
}

struct Fields {
    path: Option<WorkspacePath>,
    content: Option<String>,
    url: Option<Url>,
}

fn fields(object: &mut Object<'_>, errors: &mut FieldErrors) -> Fields {
    let path = object.string("path", 1..=MAX_PATH_CHARS, errors).and_then(|text| {
        let parsed = WorkspacePath::parse(&text).map_err(|error| error.to_string());
        let parsed = parsed.and_then(|path| match path.is_root() {
            true => Err("must be the path of a file, not of the workspace root".to_owned()),
            false => Ok(path),
        });
        parsed.map_err(|message| errors.add(object.path_to("path"), message)).ok()
    });
    Fields {
        path,
        content: object.string("content", 0..=MAX_SKILL_BYTES, errors),
        url: http_url(object, "url", errors),
    }
}

/// Reads an optional `http` or `https` URL. A URL with a user name or password is rejected.
pub(crate) fn http_url(object: &mut Object<'_>, name: &'static str, errors: &mut FieldErrors) -> Option<Url> {
    let text = object.string(name, 1..=MAX_URL_CHARS, errors)?;
    let url = Url::parse(&text).ok().filter(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && url.username().is_empty()
            && url.password().is_none()
    });
    if url.is_none() {
        errors.add(object.path_to(name), "must be an `http` or `https` URL without a user name or password");
    }
    url
}

/// Builds the source of a skill from the fields of the request. Each kind of source requires one field. Adds an error
/// if this field is missing, and one for each field that the kind does not allow.
fn build_source(
    source: SkillSource,
    fields: Fields,
    object: &Object<'_>,
    errors: &mut FieldErrors,
) -> Option<NewSource> {
    let Fields { path, content, url } = fields;
    let required = match source {
        SkillSource::File => "path",
        SkillSource::Inline => "content",
        SkillSource::Url => "url",
    };
    let fields = [("path", path.is_some()), ("content", content.is_some()), ("url", url.is_some())];
    for (name, is_present) in fields {
        let is_initial_content = source == SkillSource::File && name == "content";
        if is_present && name != required && !is_initial_content {
            errors.add(object.path_to(name), format!("must not be set if `source` is `{}`", source.as_str()));
        }
        if !is_present && name == required && !errors.has(&object.path_to(name)) {
            errors.add(object.path_to(name), format!("is required if `source` is `{}`", source.as_str()));
        }
    }
    match source {
        SkillSource::File => Some(NewSource::File { path: path?, content }),
        SkillSource::Inline => Some(NewSource::Inline { content: content? }),
        SkillSource::Url => Some(NewSource::Url(url?)),
    }
}

fn check_name(name: &str, object: &Object<'_>, errors: &mut FieldErrors) -> bool {
    let is_valid = !name.contains(|letter: char| letter.is_control() || letter == '/') && name.trim() == name;
    if !is_valid {
        let message = "must not contain control characters or `/`, and must not begin or end with whitespace";
        errors.add(object.path_to("name"), message);
    }
    is_valid
}

fn parse_replacement(body: &Value) -> Result<SkillPatch, Error> {
    let mut errors = FieldErrors::default();
    let mut object = Object::from_body(body, &mut errors);
    let name = object.string("name", 1..=MAX_NAME_CHARS, &mut errors);
    let name = name.filter(|name| check_name(name, &object, &mut errors));
    let source = object.choice("source", &SOURCES, &mut errors);
    let Fields { path, content, url } = fields(&mut object, &mut errors);
    object.finish(&mut errors);
    errors.check()?;
    Ok(SkillPatch { name, source, path, content, url })
}
