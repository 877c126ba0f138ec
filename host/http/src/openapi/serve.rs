//! Serves the document: as JSON for programs, and as a page for people.

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

/// The document. It is made when it is asked for the first time: most hosts are never asked.
pub struct Document {
    table: Vec<Route>,
    served: OnceLock<Served>,
}

/// The document, as it is served.
struct Served {
    /// As JSON.
    json: Bytes,
    /// For people.
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
            // Names and texts can always be written; a test holds it against the repository's.
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

/// Nothing in it changes while the host runs, and a new version of the host may have another one.
const CACHING: &str = "no-cache";

/// The page.
pub async fn html(Extension(document): Extension<Arc<Document>>) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
    of_page((headers, document.served().page.clone()).into_response())
}

/// Its style.
pub async fn style() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/css; charset=utf-8")];
    of_page((headers, include_str!("page.css")).into_response())
}

/// Its icon, which is the dashboard's.
pub async fn icon() -> Response {
    let headers = [(header::CONTENT_TYPE, "image/svg+xml")];
    of_page((headers, include_str!("../../../../web/src/icon.svg")).into_response())
}

fn of_page(mut response: Response) -> Response {
    response.extensions_mut().insert(OfPage { caching: CACHING });
    response
}
