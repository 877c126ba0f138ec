//! Serves the OpenAPI document as JSON and as a page.

use std::sync::{Arc, OnceLock};

use axum::Extension;
use axum::body::Bytes;
use axum::http::{Uri, header};
use axum::response::{IntoResponse, Response};

use super::{build, page};
use crate::assets::OfPage;
use crate::parameters::Parameters;
use crate::problem::Problem;
use crate::routes::Route;

/// The document. It is built on the first request, because most hosts never receive one.
pub struct Document {
    table: Vec<Route>,
    served: OnceLock<Served>,
}

/// The rendered document.
struct Served {
    /// JSON.
    json: Bytes,
    /// HTML page.
    page: Bytes,
}

impl Document {
    /// The document of these routes.
    pub fn of(table: Vec<Route>) -> Self {
        Self {
            table,
            served: OnceLock::new(),
        }
    }

    fn served(&self) -> &Served {
        self.served.get_or_init(|| Served::of(&self.table))
    }
}

impl Served {
    fn of(table: &[Route]) -> Self {
        let api = build(table);
        Self {
            // Serializing names and strings cannot fail; a test compares the result with `docs/openapi.json`.
            json: (api.to_pretty_json().unwrap_or_default() + "\n").into(),
            page: page::render(&api).into(),
        }
    }
}

/// The document as JSON.
pub async fn json(Extension(document): Extension<Arc<Document>>, uri: Uri) -> Result<Response, Problem> {
    Parameters::parse(&uri, &[])?;
    let headers = [(header::CONTENT_TYPE, "application/json")];
    Ok((headers, document.served().json.clone()).into_response())
}

/// The page changes only with the version of the host; browsers revalidate it.
const CACHING: &str = "no-cache";

/// The document as a page.
pub async fn html(Extension(document): Extension<Arc<Document>>) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
    of_page((headers, document.served().page.clone()).into_response())
}

/// Style sheet of the page.
pub async fn style() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/css; charset=utf-8")];
    of_page((headers, include_str!("page.css")).into_response())
}

/// Icon of the page: that of the dashboard.
pub async fn icon() -> Response {
    let headers = [(header::CONTENT_TYPE, "image/svg+xml")];
    of_page((headers, include_str!("../../../../web/src/icon.svg")).into_response())
}

fn of_page(mut response: Response) -> Response {
    response.extensions_mut().insert(OfPage { caching: CACHING });
    response
}
