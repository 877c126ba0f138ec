//! Routes of the host as a whole: dashboard, health, OpenAPI document, projections, SQL and tokens.

use axum::http::StatusCode;

use super::Routes;
use crate::change::Change;
use crate::doc::{Doc, Tag, choice, text};
use crate::openapi::serve as openapi;
use crate::{assets, health, info, nodes, projections, proof, sql, tokens};
use lantern_api::{CreatedToken, History, Info, NewToken, Node, Proof, Readiness, SqlAnswer, Token, WhoAmI};
use lantern_model::status::Status;
use lantern_trust::identity::PROOF_PATH;

pub fn routes(routes: Routes) -> Routes {
    access(queries(about(health_routes(pages(routes)))))
}

fn pages(routes: Routes) -> Routes {
    let pages = assets::PAGES
        .into_iter()
        .fold(routes, |routes, path| routes.page(path, assets::page));
    pages
        .page("/assets/{file}", assets::file)
        .page("/api/v1/docs", openapi::html)
        .page("/api/v1/docs/style.css", openapi::style)
        .page("/api/v1/docs/icon.svg", openapi::icon)
}

fn doc(id: &'static str, summary: &'static str) -> Doc {
    Doc::new(Tag::Host, id, summary)
}

fn health_routes(routes: Routes) -> Routes {
    let ready = |id, summary, description| {
        doc(id, summary)
            .description(description)
            .answers::<Readiness>("All checks pass.")
            .answers_with::<Readiness>(StatusCode::SERVICE_UNAVAILABLE, "At least one check fails.")
    };
    routes
        .open(
            "/livez",
            health::live,
            doc("live", "Liveness")
                .description("Does not depend on the broker or the database: an orchestrator must not restart a host that waits for its broker.")
                .answers_text("text/plain", "`ok`."),
        )
        .open(
            "/readyz",
            health::ready,
            ready(
                "ready",
                "Readiness",
                "Checks the broker, the database, the disk and every projection. The check of a projection fails when it \
                 has halted, or made no progress for ten seconds although messages are waiting. If reads need a \
                 token and the request has none, the response has one check of each kind, without details.",
            ),
        )
        .read(
            "/healthz",
            health::health,
            ready(
                "health",
                "Readiness with details",
                "Like `/readyz`, always with details.",
            ),
        )
        .read(
            "/metrics",
            health::metrics,
            doc("metrics", "Prometheus metrics")
                .answers_text("application/openmetrics-text", "The metrics."),
        )
}

fn about(routes: Routes) -> Routes {
    routes
        .open(
            "/api/v1/info",
            info::info,
            doc("info", "Information about the host").answers::<Info>("The host."),
        )
        .open(
            PROOF_PATH,
            proof::prove,
            doc("prove", "Prove the identity of the host")
                .description(
                    "Commands on the same machine verify the proof before they send a token. The proof is an HMAC-SHA-256 \
                     over a fixed prefix, the nonce and the address in `host.json`, with the key in `host.key`.",
                )
                .query(
                    text("nonce", "32 random bytes in base64url without padding.")
                        .required()
                        .example("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
                )
                .answers::<Proof>("The proof."),
        )
        .open(
            "/api/v1/openapi.json",
            openapi::json,
            doc("openapi", "OpenAPI document")
                .description("`/api/v1/docs` is the same document as a page.")
                .answers_object("The OpenAPI 3.1 document."),
        )
}

fn queries(routes: Routes) -> Routes {
    routes
        .read(
            "/api/v1/projections",
            projections::list,
            doc("listProjections", "List projections")
                .answers_list::<Status>("All projections, ordered by plugin and source."),
        )
        .read(
            "/api/v1/nodes",
            nodes::list,
            doc("listNodes", "List the hosts of the database")
                .description("Several hosts can share a PostgreSQL database. The list is empty with SQLite.")
                .answers_list::<Node>("The hosts, ordered by name."),
        )
        .read(
            "/api/v1/projections/history",
            projections::history,
            doc("projectionHistory", "History of projections")
                .description("The last hour of each projection, one sample every ten seconds. The history begins with the start of the host.")
                .answers::<History>("The samples."),
        )
        .read_as_operator(
            "/api/v1/sql",
            "sql.query",
            sql::sql,
            doc("sql", "Run an SQL query")
                .description(
                    "Runs one SELECT over the tables of plugins. Requires the setting `http.sql = true`. Limits: three \
                     seconds, 1,000 rows (100,000 as CSV). Other statements, PRAGMA, ATTACH and the internal tables \
                     of the host are rejected.",
                )
                .query(text("query", "The SELECT statement.").required().example("SELECT 1"))
                .query(choice(
                    "format",
                    &["json", "csv"],
                    "Response format; defaults to `json`.",
                ))
                .answers::<SqlAnswer>("The rows.")
                .answers_text("text/csv", "The rows.")
                .fails_with(StatusCode::NOT_FOUND)
                .fails_with(StatusCode::UNPROCESSABLE_ENTITY),
        )
}

fn access(routes: Routes) -> Routes {
    let doc = |id, summary| Doc::new(Tag::Access, id, summary);
    routes
        .read(
            "/api/v1/whoami",
            tokens::who_am_i,
            doc("whoAmI", "Token of this request").answers::<WhoAmI>("Name and role of the token."),
        )
        .read_as_operator(
            "/api/v1/tokens",
            "token.list",
            tokens::list,
            doc("listTokens", "List tokens").answers_list::<Token>("All tokens, without their text."),
        )
        .change(
            Change::post("/api/v1/tokens", "token.create"),
            tokens::create,
            doc("createToken", "Create a token")
                .takes::<NewToken>()
                .answers_with::<CreatedToken>(
                    StatusCode::CREATED,
                    "The token with its text, which no other response contains.",
                )
                .fails_with(StatusCode::CONFLICT),
        )
        .change(
            Change::delete("/api/v1/tokens/{name}", "token.revoke"),
            tokens::revoke,
            doc("revokeToken", "Revoke a token")
                .description("Streaming responses that use the token end.")
                .answers_nothing("The token is revoked."),
        )
}
