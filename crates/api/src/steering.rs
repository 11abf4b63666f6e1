//! `…/steering` and `…/approvals`: lists and answers steering requests, and lists and withdraws remembered approvals.

use axum::Json;
use axum::extract::State;
use herm_app::steering::{self, ListFilter};
use herm_types::error::ErrorBody;
use herm_types::paging::Page;
use herm_types::steering::{
    Approval, Remember, SteeringAnswer, SteeringDecision, SteeringRequest, SteeringStatus,
};
use herm_types::{ApprovalId, DeploymentId, Error, SteeringId};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use crate::auth::Auth;
use crate::error::Failure;
use crate::idempotency::OptionalClaim;
use crate::input::{DeploymentPath, FieldErrors, FieldValue, JsonBody, Object, Query};
use crate::state::ApiState;

/// The maximum length of the message in an answer, in characters.
const MAX_MESSAGE_CHARS: usize = 100_000;

const DECISIONS: [(&str, SteeringDecision); 3] = [
    ("approve", SteeringDecision::Approve),
    ("deny", SteeringDecision::Deny),
    ("answer", SteeringDecision::Answer),
];
const REMEMBER: [(&str, Remember); 3] =
    [("once", Remember::Once), ("run", Remember::Run), ("always", Remember::Always)];

/// An answer to a steering request.
#[derive(utoipa::ToSchema)]
#[expect(
    dead_code,
    reason = "it only describes the schema; the body is parsed field by field to report all errors"
)]
pub(crate) struct AnswerSteering {
    decision: SteeringDecision,
    /// The answer to a question, the reason for a denial, or a comment on an approval. The agent reads this text.
    #[schema(max_length = 100_000)]
    message: Option<String>,
    /// Arguments for the approved tool call, in place of the arguments that the agent wrote.
    #[schema(value_type = Option<Object>)]
    arguments: Option<Value>,
    remember: Option<Remember>,
}

/// List the steering requests of all deployments that the key can access, newest first.
#[utoipa::path(get, path = "/v1/steering", operation_id = "list_all_steering", tag = "steering",
    params(("status" = Option<SteeringStatus>, Query),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Page<SteeringRequest>), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
pub(crate) async fn list_all_steering(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    mut query: Query,
) -> Result<Json<Page<SteeringRequest>>, Failure> {
    let filter = ListFilter { deployment_id: None, status: status(&mut query) };
    let page = query.page::<SteeringId>();
    query.finish()?;
    Ok(Json(steering::list(&state.app, &caller, filter, page).await?))
}

/// List a deployment's steering requests, newest first.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/steering", operation_id = "list_steering",
    tag = "steering", params(("deployment_id" = DeploymentId, Path), ("status" = Option<SteeringStatus>, Query),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Page<SteeringRequest>), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn list_steering(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    mut query: Query,
) -> Result<Json<Page<SteeringRequest>>, Failure> {
    let filter = ListFilter { deployment_id: Some(path.deployment_id), status: status(&mut query) };
    let page = query.page::<SteeringId>();
    query.finish()?;
    Ok(Json(steering::list(&state.app, &caller, filter, page).await?))
}

fn status(query: &mut Query) -> Option<SteeringStatus> {
    query.choice("status", SteeringStatus::parse, "`pending`, `resolved`")
}

/// Get a steering request.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/steering/{steering_id}", operation_id = "get_steering",
    tag = "steering", params(("deployment_id" = DeploymentId, Path), ("steering_id" = SteeringId, Path)),
    responses((status = 200, body = SteeringRequest), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn get_steering(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
) -> Result<Json<SteeringRequest>, Failure> {
    query.finish()?;
    let steering_id = path.id("steering request", "steering_id")?;
    Ok(Json(steering::get(&state.app, &caller, path.deployment_id, steering_id).await?))
}

/// Answer a steering request, so that the waiting run continues.
///
/// The first answer is final. Sending the same answer again has no effect and returns 200. A different answer returns
/// 409.
#[utoipa::path(post, path = "/v1/deployments/{deployment_id}/steering/{steering_id}",
    operation_id = "answer_steering", tag = "steering",
    params(("deployment_id" = DeploymentId, Path), ("steering_id" = SteeringId, Path)),
    request_body = AnswerSteering,
    responses((status = 200, body = SteeringRequest), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
pub(crate) async fn answer_steering(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
    claim: OptionalClaim,
    JsonBody(body): JsonBody,
) -> Result<Json<SteeringRequest>, Failure> {
    query.finish()?;
    let steering_id = path.id("steering request", "steering_id")?;
    let answer = parse(&body)?;
    let reply = claim.reply(StatusCode::OK);
    Ok(Json(steering::answer(&state.app, &caller, path.deployment_id, steering_id, answer, reply).await?))
}

fn parse(body: &Value) -> Result<SteeringAnswer, Error> {
    let mut errors = FieldErrors::default();
    let mut object = Object::from_body(body, &mut errors);
    let decision = object.required_choice("decision", &DECISIONS, &mut errors);
    let message = object.string("message", 0..=MAX_MESSAGE_CHARS, &mut errors);
    let arguments = match object.field_value("arguments") {
        FieldValue::Absent | FieldValue::Null => None,
        FieldValue::Value(value) => {
            if !value.is_object() {
                errors.add("arguments", "must be an object");
            }
            Some(value.clone())
        }
    };
    let remember = object.choice("remember", &REMEMBER, &mut errors).unwrap_or_default();
    object.finish(&mut errors);
    errors.check()?;
    let Some(decision) = decision else { return Err(Error::invalid(Vec::new())) };
    Ok(SteeringAnswer { decision, message, arguments, remember })
}

/// List a deployment's remembered approvals, newest first.
///
/// An approval is remembered if it was given with `remember: "always"`. Identical tool calls then need no further
/// approval.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/approvals", operation_id = "list_approvals",
    tag = "steering", params(("deployment_id" = DeploymentId, Path),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Page<Approval>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn list_approvals(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    mut query: Query,
) -> Result<Json<Page<Approval>>, Failure> {
    let page = query.page::<ApprovalId>();
    query.finish()?;
    Ok(Json(steering::list_approvals(&state.app, &caller, path.deployment_id, page).await?))
}

/// The result of withdrawing remembered approvals.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct WithdrawnApprovals {
    /// The number of remembered approvals that were withdrawn.
    withdrawn: u64,
}

/// Withdraw all remembered approvals of a deployment. The tool calls that they covered then require approval again.
#[utoipa::path(delete, path = "/v1/deployments/{deployment_id}/approvals", operation_id = "delete_approvals",
    tag = "steering", params(("deployment_id" = DeploymentId, Path)),
    responses((status = 200, body = WithdrawnApprovals), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn delete_approvals(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
) -> Result<Json<WithdrawnApprovals>, Failure> {
    query.finish()?;
    let withdrawn = steering::withdraw_approvals(&state.app, &caller, path.deployment_id, None).await?;
    Ok(Json(WithdrawnApprovals { withdrawn }))
}

/// Withdraw a remembered approval. The tool calls that it covered then require approval again.
#[utoipa::path(delete, path = "/v1/deployments/{deployment_id}/approvals/{approval_id}",
    operation_id = "delete_approval", tag = "steering",
    params(("deployment_id" = DeploymentId, Path), ("approval_id" = ApprovalId, Path)),
    responses((status = 200, body = WithdrawnApprovals), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn delete_approval(
    State(state): State<ApiState>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
) -> Result<Json<WithdrawnApprovals>, Failure> {
    query.finish()?;
    let approval_id = path.id("approval", "approval_id")?;
    let withdrawn =
        steering::withdraw_approvals(&state.app, &caller, path.deployment_id, Some(approval_id)).await?;
    Ok(Json(WithdrawnApprovals { withdrawn }))
}
