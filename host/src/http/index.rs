//! The page at `/`: where things are, until the dashboard is there.

use axum::response::Html;

const PAGE: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>Lantern</title>
<h1>Lantern</h1>
<p>Streams go in, tables come out.</p>
<ul>
<li><a href=\"/readyz\">/readyz</a>: is everything well, and if not, what is not
<li><a href=\"/livez\">/livez</a>: does the process answer
<li><a href=\"/metrics\">/metrics</a>: figures for Prometheus
<li><a href=\"/api/v1/projections\">/api/v1/projections</a>: what is read, and how far
<li><a href=\"/api/v1/plugins\">/api/v1/plugins</a>: what is installed, in which versions
<li><a href=\"/api/v1/tables\">/api/v1/tables</a>: the tables, and <code>/api/v1/tables/NAME/rows</code> their rows
<li><a href=\"/api/v1/dead-letters\">/api/v1/dead-letters</a>: messages that could not be projected
<li><a href=\"/api/v1/gaps\">/api/v1/gaps</a>: messages that were gone before they were read
<li><a href=\"/api/v1/ledger\">/api/v1/ledger</a>: which version handled which messages
</ul>
</html>
";

pub async fn page() -> Html<&'static str> {
    Html(PAGE)
}
