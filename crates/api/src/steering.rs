//! `…/steering` and `…/approvals`: what runs ask people, and what people answer.

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
use crate::idempotency::Once;
use crate::input::{DeploymentPath, Faults, Given, JsonBody, Object, Query};
use crate::router::Shared;

/// The most characters of what goes with an answer.
const MAX_MESSAGE_CHARS: usize = 100_000;

const DECISIONS: [(&str, SteeringDecision); 3] = [
    ("approve", SteeringDecision::Approve),
    ("deny", SteeringDecision::Deny),
    ("answer", SteeringDecision::Answer),
];
const REMEMBER: [(&str, Remember); 3] =
    [("once", Remember::Once), ("run", Remember::Run), ("always", Remember::Always)];

/// The shape of the body, for the OpenAPI document.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "it is the shape alone: the body is read field by field to find all its faults")]
pub(crate) struct AnswerSteering {
    decision: SteeringDecision,
    /// The answer to a question; the reason of a denial; what goes with an approval. The agent reads it.
    #[schema(max_length = 100_000)]
    message: Option<String>,
    /// What the call is made with, in place of what the agent wrote.
    #[schema(value_type = Option<Object>)]
    arguments: Option<Value>,
    remember: Option<Remember>,
}

/// List what the runs of all deployments within the key's reach ask or asked, newest first.
#[utoipa::path(get, path = "/v1/steering", operation_id = "list_all_steering", tag = "steering",
    params(("status" = Option<SteeringStatus>, Query),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Page<SteeringRequest>), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody)))]
pub(crate) async fn list_all_steering(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    mut query: Query,
) -> Result<Json<Page<SteeringRequest>>, Failure> {
    let filter = ListFilter { deployment_id: None, status: status(&mut query) };
    let page = query.page::<SteeringId>();
    query.finish()?;
    Ok(Json(steering::list(&shared.app, &caller, filter, page).await?))
}

/// List what a deployment's runs ask or asked, newest first.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/steering", operation_id = "list_steering",
    tag = "steering", params(("deployment_id" = DeploymentId, Path), ("status" = Option<SteeringStatus>, Query),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Page<SteeringRequest>), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn list_steering(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    mut query: Query,
) -> Result<Json<Page<SteeringRequest>>, Failure> {
    let filter = ListFilter { deployment_id: Some(path.deployment_id), status: status(&mut query) };
    let page = query.page::<SteeringId>();
    query.finish()?;
    Ok(Json(steering::list(&shared.app, &caller, filter, page).await?))
}

fn status(query: &mut Query) -> Option<SteeringStatus> {
    query.choice("status", SteeringStatus::parse, "pending, resolved")
}

/// Get what a run asks or asked.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/steering/{steering_id}", operation_id = "get_steering",
    tag = "steering", params(("deployment_id" = DeploymentId, Path), ("steering_id" = SteeringId, Path)),
    responses((status = 200, body = SteeringRequest), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn get_steering(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
) -> Result<Json<SteeringRequest>, Failure> {
    query.finish()?;
    let steering_id = path.id("steering request", "steering_id")?;
    Ok(Json(steering::get(&shared.app, &caller, path.deployment_id, steering_id).await?))
}

/// Answer what a run asks; the run goes on. The first answer stands: the same again is answered 200, another 409.
#[utoipa::path(post, path = "/v1/deployments/{deployment_id}/steering/{steering_id}",
    operation_id = "answer_steering", tag = "steering",
    params(("deployment_id" = DeploymentId, Path), ("steering_id" = SteeringId, Path)),
    request_body = AnswerSteering,
    responses((status = 200, body = SteeringRequest), (status = 400, body = ErrorBody),
        (status = 401, body = ErrorBody), (status = 403, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, body = ErrorBody)))]
pub(crate) async fn answer_steering(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
    once: Once,
    JsonBody(body): JsonBody,
) -> Result<Json<SteeringRequest>, Failure> {
    query.finish()?;
    let steering_id = path.id("steering request", "steering_id")?;
    let answer = parse(&body)?;
    let reply = once.reply(StatusCode::OK);
    Ok(Json(steering::answer(&shared.app, &caller, path.deployment_id, steering_id, answer, reply).await?))
}

fn parse(body: &Value) -> Result<SteeringAnswer, Error> {
    let mut faults = Faults::default();
    let mut object = Object::of_body(body, &mut faults);
    let decision = object.required_choice("decision", &DECISIONS, &mut faults);
    let message = object.text("message", 0..=MAX_MESSAGE_CHARS, &mut faults);
    let arguments = match object.given("arguments") {
        Given::Absent | Given::Null => None,
        Given::Value(value) => {
            if !value.is_object() {
                faults.add("arguments", "must be an object");
            }
            Some(value.clone())
        }
    };
    let remember = object.choice("remember", &REMEMBER, &mut faults).unwrap_or_default();
    object.finish(&mut faults);
    faults.check()?;
    let Some(decision) = decision else { return Err(Error::invalid(Vec::new())) };
    Ok(SteeringAnswer { decision, message, arguments, remember })
}

/// List the calls that need not be asked about again, as they were approved with `remember: "always"`, newest first.
#[utoipa::path(get, path = "/v1/deployments/{deployment_id}/approvals", operation_id = "list_approvals",
    tag = "steering", params(("deployment_id" = DeploymentId, Path),
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 100), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = Page<Approval>), (status = 400, body = ErrorBody), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn list_approvals(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    mut query: Query,
) -> Result<Json<Page<Approval>>, Failure> {
    let page = query.page::<ApprovalId>();
    query.finish()?;
    Ok(Json(steering::list_approvals(&shared.app, &caller, path.deployment_id, page).await?))
}

/// Approvals that were withdrawn.
#[derive(Serialize, utoipa::ToSchema)]
pub(crate) struct WithdrawnApprovals {
    /// How many there were.
    withdrawn: u64,
}

/// Withdraw all approvals of a deployment: such calls are asked about again.
#[utoipa::path(delete, path = "/v1/deployments/{deployment_id}/approvals", operation_id = "delete_approvals",
    tag = "steering", params(("deployment_id" = DeploymentId, Path)),
    responses((status = 200, body = WithdrawnApprovals), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn delete_approvals(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
) -> Result<Json<WithdrawnApprovals>, Failure> {
    query.finish()?;
    let withdrawn = steering::withdraw_approvals(&shared.app, &caller, path.deployment_id, None).await?;
    Ok(Json(WithdrawnApprovals { withdrawn }))
}

/// Withdraw one approval.
#[utoipa::path(delete, path = "/v1/deployments/{deployment_id}/approvals/{approval_id}",
    operation_id = "delete_approval", tag = "steering",
    params(("deployment_id" = DeploymentId, Path), ("approval_id" = ApprovalId, Path)),
    responses((status = 200, body = WithdrawnApprovals), (status = 401, body = ErrorBody),
        (status = 403, body = ErrorBody), (status = 404, body = ErrorBody)))]
pub(crate) async fn delete_approval(
    State(shared): State<Shared>,
    Auth(caller): Auth,
    path: DeploymentPath,
    query: Query,
) -> Result<Json<WithdrawnApprovals>, Failure> {
    query.finish()?;
    let approval_id = path.id("approval", "approval_id")?;
    let withdrawn =
        steering::withdraw_approvals(&shared.app, &caller, path.deployment_id, Some(approval_id)).await?;
    Ok(Json(WithdrawnApprovals { withdrawn }))
}
