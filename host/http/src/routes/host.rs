//! Routes about the host as a whole: its pages and its health, the API's own description, the projections, and who may
//! ask for what.

use axum::http::StatusCode;

use super::Routes;
use crate::change::Change;
use crate::doc::{Doc, Tag, choice, text};
use crate::openapi::serve as openapi;
use crate::{assets, health, info, projections, proof, sql, tokens};
use lantern_api::{CreatedToken, History, Info, NewToken, Proof, Readiness, SqlAnswer, Token, WhoAmI};
use lantern_model::status::Status;
use lantern_trust::identity::PROOF_PATH;

pub fn routes(routes: Routes) -> Routes {
    access(about(pages(routes)))
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

fn about(routes: Routes) -> Routes {
    let doc = |id, summary| Doc::new(Tag::Host, id, summary);
    let ready = |id, summary, description| {
        doc(id, summary)
            .says(description)
            .answers::<Readiness>("All is well.")
            .answers_with::<Readiness>(
                StatusCode::SERVICE_UNAVAILABLE,
                "Something is not well, and this is what.",
            )
    };
    routes
        .open(
            "/livez",
            health::live,
            doc("live", "Whether the process answers")
                .says("Asks nobody: a host that waits for its broker must not be restarted for it.")
                .answers_text("text/plain", "`ok`."),
        )
        .open(
            "/readyz",
            health::ready,
            ready(
                "ready",
                "Whether all is well",
                "Checks the broker, the database, the disk, and every projection, which is not well when \
                 it has halted, or has not moved for ten seconds although messages wait. Where reads need a \
                 token and the request has none, the answer has one check for each kind, without details.",
            ),
        )
        .read(
            "/healthz",
            health::health,
            ready(
                "health",
                "Whether all is well, for viewers",
                "As `/readyz`, always with details.",
            ),
        )
        .read(
            "/metrics",
            health::metrics,
            doc("metrics", "Figures for Prometheus")
                .answers_text("application/openmetrics-text", "The figures."),
        )
        .open(
            "/api/v1/info",
            info::info,
            doc("info", "What the host is").answers::<Info>("The host."),
        )
        .open(
            PROOF_PATH,
            proof::prove,
            doc("prove", "Prove which host this is")
                .says(
                    "For commands on the same machine, which ask before they send a token: the proof is HMAC-SHA-256 \
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
            doc("openapi", "This document")
                .says("As a page for people it is at `/api/v1/docs`.")
                .answers_object("An OpenAPI 3.1 document."),
        )
        .read(
            "/api/v1/projections",
            projections::list,
            doc("listProjections", "The projections, and how far they are")
                .answers_list::<Status>("All of them, by plugin and source."),
        )
        .read(
            "/api/v1/projections/history",
            projections::history,
            doc("projectionHistory", "How the projections did in the last hour")
                .says("A sample of each every ten seconds, as long as the host has run.")
                .answers::<History>("The samples."),
        )
        .read_as_operator(
            "/api/v1/sql",
            "sql.query",
            sql::sql,
            doc("sql", "A question in SQL")
                .says(
                    "One SELECT over the tables of plugins, where the setting `http.sql` is true; three \
                     seconds, 1,000 rows (100,000 as CSV). There is nothing else to be had: no other \
                     statement, no PRAGMA, no ATTACH, none of the host's own tables.",
                )
                .query(text("query", "The SELECT.").required().example("SELECT 1"))
                .query(choice(
                    "format",
                    &["json", "csv"],
                    "How the answer is written; JSON when nothing is said.",
                ))
                .answers::<SqlAnswer>("The rows.")
                .answers_text("text/csv", "The rows.")
                .refuses(StatusCode::NOT_FOUND)
                .refuses(StatusCode::UNPROCESSABLE_ENTITY),
        )
}

fn access(routes: Routes) -> Routes {
    let doc = |id, summary| Doc::new(Tag::Access, id, summary);
    routes
        .read(
            "/api/v1/whoami",
            tokens::who_am_i,
            doc("whoAmI", "Whose token this is").answers::<WhoAmI>("Who asks, and what may be done."),
        )
        .read_as_operator(
            "/api/v1/tokens",
            "token.list",
            tokens::list,
            doc("listTokens", "All tokens").answers_list::<Token>("The tokens, without their text."),
        )
        .change(
            Change::post("/api/v1/tokens", "token.create"),
            tokens::create,
            doc("createToken", "Make a token")
                .takes::<NewToken>()
                .answers_with::<CreatedToken>(StatusCode::CREATED, "The token, shown this once.")
                .refuses(StatusCode::CONFLICT),
        )
        .change(
            Change::delete("/api/v1/tokens/{name}", "token.revoke"),
            tokens::revoke,
            doc("revokeToken", "Revoke a token")
                .says("Whoever follows a table with it is told no more.")
                .answers_nothing("It is revoked."),
        )
}
