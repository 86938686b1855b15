//! Pages for people, load balancers and Prometheus, on the same port as gRPC.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use kelda_proto::v1;
use serde_json::{Value, json};

use crate::{broker::Broker, telemetry::Metrics};

/// What the pages show.
#[derive(Clone)]
pub(super) struct Pages {
    pub(super) broker: Broker,
    pub(super) metrics: Arc<Metrics>,
}

/// All pages.
pub(super) fn router(pages: Pages) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/cluster/status", get(cluster_status))
        .route("/admin/assignment-plan", get(assignment_plan))
        .route("/metrics", get(metrics))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .with_state(pages)
}

async fn health(State(pages): State<Pages>) -> impl IntoResponse {
    if *pages.broker.readiness().borrow() {
        (StatusCode::OK, Json(json!({ "status": "serving" })))
    } else {
        let status = json!({ "status": "not_serving" });
        (StatusCode::SERVICE_UNAVAILABLE, Json(status))
    }
}

async fn metrics(State(pages): State<Pages>) -> impl IntoResponse {
    let text = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (text, pages.metrics.render())
}

async fn cluster_status(State(pages): State<Pages>) -> impl IntoResponse {
    match pages.broker.status() {
        Ok(status) => (StatusCode::OK, Json(status_json(&status))),
        Err(error) => {
            let error = json!({ "error": error.to_string() });
            (StatusCode::SERVICE_UNAVAILABLE, Json(error))
        }
    }
}

async fn assignment_plan(State(pages): State<Pages>) -> impl IntoResponse {
    match pages.broker.assignment_plan(0).await {
        Ok(plan) => (StatusCode::OK, Json(plan_json(&plan))),
        Err(error) => {
            let error = json!({ "error": error.to_string() });
            (StatusCode::SERVICE_UNAVAILABLE, Json(error))
        }
    }
}

async fn not_found() -> impl IntoResponse {
    let error = "no such page: try /health, /cluster/status, /admin/assignment-plan or /metrics; all else is gRPC";
    (StatusCode::NOT_FOUND, Json(json!({ "error": error })))
}

async fn not_allowed() -> impl IntoResponse {
    let error = "this page can only be read: use GET";
    (
        StatusCode::METHOD_NOT_ALLOWED,
        Json(json!({ "error": error })),
    )
}

/// The plan with the names of the contract; reasons are in lower case and without their prefix.
fn plan_json(plan: &v1::GetAssignmentPlanResponse) -> Value {
    let move_json = |it: &v1::AssignmentMove| {
        let reason = it.reason().as_str_name();
        let reason = reason.strip_prefix("ASSIGNMENT_REASON_").unwrap_or(reason);
        json!({
            "topic": it.topic,
            "partition": it.partition,
            "replicas_before": it.replicas_before,
            "replicas_after": it.replicas_after,
            "leader_before": it.leader_before,
            "leader_after": it.leader_after,
            "reason": reason.to_lowercase(),
        })
    };
    json!({
        "moves": plan.moves.iter().map(move_json).collect::<Vec<_>>(),
        "moving_partition_count": plan.moving_partition_count,
    })
}

/// The status with the names of the contract. 64-bit numbers are numbers: all of them stay below 2^53.
fn status_json(status: &v1::GetStatusResponse) -> Value {
    let node = status.node.clone().unwrap_or_default();
    let storage = status.storage.unwrap_or_default();
    let limits = status.limits.unwrap_or_default();
    let start_time_ms = status
        .start_time
        .map(|time| time.seconds * 1000 + i64::from(time.nanos) / 1_000_000);
    json!({
        "cluster_id": status.cluster_id,
        "node": {
            "id": node.id,
            "name": node.name,
            "address": node.address,
            "version": node.version,
        },
        "ready": status.ready,
        "catalog_leader": status.catalog_leader,
        "node_count": status.node_count,
        "topic_count": status.topic_count,
        "partition_count": status.partition_count,
        "leaderless_partition_count": status.leaderless_partition_count,
        "storage": {
            "used_bytes": storage.used_bytes,
            "free_bytes": storage.free_bytes,
            "reusable_bytes": storage.reusable_bytes,
            "floor_bytes": storage.floor_bytes,
            "writable": storage.writable,
        },
        "limits": {
            "record_bytes_max": limits.record_bytes_max,
            "batch_bytes_max": limits.batch_bytes_max,
            "request_bytes_max": limits.request_bytes_max,
            "batch_records_max": limits.batch_records_max,
            "record_headers_max": limits.record_headers_max,
            "decompressed_bytes_max": limits.decompressed_bytes_max,
        },
        "start_time_ms": start_time_ms,
    })
}
