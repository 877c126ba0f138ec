//! Renders the OpenAPI document as one HTML page without scripts or external resources. The style sheet is a separate
//! file, because the Content-Security-Policy forbids inline styles. All text is escaped.

mod html;
mod schema;

use utoipa::openapi::path::{HttpMethod, Operation, Parameter, ParameterIn};
use utoipa::openapi::request_body::RequestBody;
use utoipa::openapi::{Components, Content, OpenApi, PathItem, RefOr, Required, Response as Answer};

use super::ERROR_RESPONSES;
use html::{Html, code, escape, prose};
use schema::{details, sample, type_label};

/// Renders the page.
pub fn render(api: &OpenApi) -> String {
    let tags = api.tags.as_deref().unwrap_or_default();
    let mut all = Html::default();
    all.push("<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n");
    all.push("<meta name=\"viewport\" content=\"width=device-width\">\n<title>Lantern API</title>\n");
    all.push("<link rel=\"icon\" href=\"/api/v1/docs/icon.svg\" type=\"image/svg+xml\">\n");
    all.push("<link rel=\"stylesheet\" href=\"/api/v1/docs/style.css\">\n<nav>\n");
    contents_of(&mut all, api);
    all.push("<main>\n<header>\n<h1>Lantern API</h1>\n");
    all.push(&prose(api.info.description.as_deref().unwrap_or_default()));
    all.push(&format!(
        "<p>Version {}. OpenAPI 3.1 document: <a \
             href=\"/api/v1/openapi.json\">/api/v1/openapi.json</a>.\n</header>\n",
        escape(&api.info.version)
    ));
    let components = api.components.as_ref();
    for tag in tags {
        all.push(&format!("<section>\n<h2>{}</h2>\n", escape(&tag.name)));
        all.push(&prose(tag.description.as_deref().unwrap_or_default()));
        for (path, method, operation) in of_tag(api, &tag.name) {
            route(&mut all, path, &method, operation, components);
        }
        all.push("</section>\n");
    }
    errors(&mut all);
    all.push("<section id=\"schemas\">\n<h2>Schemas</h2>\n");
    for (name, schema) in components.iter().flat_map(|components| &components.schemas) {
        let name = escape(name);
        all.push(&format!("<article id=\"schema-{name}\">\n<h3>{name}</h3>\n"));
        all.push(&details(schema));
        all.push("</article>\n");
    }
    all.push("</section>\n</main>\n</html>\n");
    all.into_string()
}

/// Table of contents.
fn contents_of(all: &mut Html, api: &OpenApi) {
    all.push("<h2><a href=\"/\">Lantern</a></h2>\n");
    for tag in api.tags.iter().flatten() {
        all.push(&format!("<h3>{}</h3>\n<ul>\n", escape(&tag.name)));
        for (path, method, operation) in of_tag(api, &tag.name) {
            all.push(&format!(
                "<li><a href=\"#{}\" title=\"{} {}\">{}</a>\n",
                id(operation),
                name(&method),
                escape(path),
                escape(operation.summary.as_deref().unwrap_or_default()),
            ));
        }
        all.push("</ul>\n");
    }
    all.push(
        "<h3><a href=\"#errors\">Errors</a></h3>\n<h3><a \
         href=\"#schemas\">Schemas</a></h3>\n</nav>\n",
    );
}

/// Section that explains the error responses of all routes.
fn errors(all: &mut Html) {
    all.push(
        "<section id=\"errors\">\n<h2>Errors</h2>\n<p>Each error is a <a \
         href=\"#schema-Problem\">Problem</a>, ",
    );
    all.push("sent as <code>application/problem+json</code>.\n<article>\n<table>\n");
    for (status, _, description) in ERROR_RESPONSES {
        all.push(&format!(
            "<tr><th><code>{}</code><td>{}\n",
            status.as_str(),
            escape(description)
        ));
    }
    all.push("</table>\n</article>\n</section>\n");
}

/// The operations with this tag, in the order of the table of routes.
fn of_tag<'a>(api: &'a OpenApi, tag: &str) -> Vec<(&'a str, HttpMethod, &'a Operation)> {
    let paths = api.paths.paths.iter();
    let all = paths.flat_map(|(path, item)| {
        operations(item).map(move |(method, operation)| (path.as_str(), method, operation))
    });
    let has = |operation: &Operation| operation.tags.iter().flatten().any(|name| name == tag);
    all.filter(|(_, _, operation)| has(operation)).collect()
}

fn operations(item: &PathItem) -> impl Iterator<Item = (HttpMethod, &Operation)> {
    [
        (HttpMethod::Get, &item.get),
        (HttpMethod::Post, &item.post),
        (HttpMethod::Put, &item.put),
        (HttpMethod::Delete, &item.delete),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_ref()?)))
}

fn name(method: &HttpMethod) -> &'static str {
    match method {
        HttpMethod::Post => "POST",
        HttpMethod::Put => "PUT",
        HttpMethod::Delete => "DELETE",
        _ => "GET",
    }
}

fn id(operation: &Operation) -> String {
    escape(operation.operation_id.as_deref().unwrap_or_default())
}

fn route(
    all: &mut Html,
    path: &str,
    method: &HttpMethod,
    operation: &Operation,
    components: Option<&Components>,
) {
    all.push(&format!(
        "<article id=\"{}\">\n<h3>{}</h3>\n<p class=\"route\"><span class=\"{}\">{}</span> <code>{}</code>\n",
        id(operation),
        escape(operation.summary.as_deref().unwrap_or_default()),
        name(method).to_lowercase(),
        name(method),
        escape(path),
    ));
    all.push(&prose(operation.description.as_deref().unwrap_or_default()));
    parameters(all, operation);
    if let Some(body) = operation.request_body.as_ref().and_then(inline) {
        takes(all, body);
    }
    all.push("<h4>Responses</h4>\n<table>\n");
    let mut errors = String::new();
    for (status, answer) in &operation.responses.responses {
        match answer {
            RefOr::T(answer) => answers(all, status, answer),
            // Error responses are explained once, in their own section.
            RefOr::Ref(_) => errors.push_str(&format!(" <a href=\"#errors\">{}</a>", escape(status))),
        }
    }
    all.push(&format!(
        "</table>\n<p class=\"refused\">Errors:{errors}\n<h4>Example</h4>\n"
    ));
    let example = curl(path, method, operation, components);
    all.push(&format!(
        "<pre><code>{}</code></pre>\n</article>\n",
        escape(&example)
    ));
}

/// The inline value; the document uses references only for responses and schemas.
fn inline<T>(part: &RefOr<T>) -> Option<&T> {
    match part {
        RefOr::T(part) => Some(part),
        RefOr::Ref(_) => None,
    }
}

/// Inline contents by media type.
fn contents<'a>(
    all: impl IntoIterator<Item = (&'a String, &'a RefOr<Content>)>,
) -> impl Iterator<Item = (&'a str, &'a Content)> {
    all.into_iter()
        .filter_map(|(kind, content)| Some((kind.as_str(), inline(content)?)))
}

/// Inline parameters.
fn inline_parameters(operation: &Operation) -> impl Iterator<Item = &Parameter> {
    operation.parameters.iter().flatten().filter_map(inline)
}

fn parameters(all: &mut Html, operation: &Operation) {
    if inline_parameters(operation).next().is_none() {
        return;
    }
    all.push("<h4>Parameters</h4>\n<table>\n");
    for parameter in inline_parameters(operation) {
        let place = match parameter.parameter_in {
            ParameterIn::Path => "path",
            ParameterIn::Header => "header",
            _ if parameter.required == Required::True => "required",
            _ => "",
        };
        let schema = parameter.schema.as_ref().map(type_label).unwrap_or_default();
        all.push(&format!(
            "<tr><th><code>{}</code> <small>{place}</small><td class=\"type\">{schema}<td>{}\n",
            escape(&parameter.name),
            prose(parameter.description.as_deref().unwrap_or_default()),
        ));
    }
    all.push("</table>\n");
}

fn takes(all: &mut Html, body: &RequestBody) {
    let optional = match body.required {
        Some(Required::True) => "",
        _ => " <small>optional</small>",
    };
    all.push(&format!("<h4>Body{optional}</h4>\n"));
    for (kind, content) in contents(&body.content) {
        all.push(&format!("<p>{} {}\n", code(kind), content_label(content)));
    }
    all.push(&prose(body.description.as_deref().unwrap_or_default()));
}

fn answers(all: &mut Html, status: &str, answer: &Answer) {
    all.push(&format!(
        "<tr><th><code>{}</code><td class=\"type\">",
        escape(status)
    ));
    for (kind, content) in contents(&answer.content) {
        all.push(&format!("<div>{} {}</div>", code(kind), content_label(content)));
    }
    all.push(&format!("<td>{}\n", prose(&answer.description)));
}

fn content_label(content: &Content) -> String {
    content.schema.as_ref().map(type_label).unwrap_or_default()
}

/// Example call for a shell.
fn curl(path: &str, method: &HttpMethod, operation: &Operation, components: Option<&Components>) -> String {
    let mut address = format!("http://localhost:7070{path}");
    let mut sign = '?';
    for parameter in inline_parameters(operation) {
        let upper = parameter.name.to_uppercase();
        match parameter.parameter_in {
            ParameterIn::Path => address = address.replace(&format!("{{{}}}", parameter.name), &upper),
            ParameterIn::Query if parameter.required == Required::True => {
                let example = parameter.schema.as_ref().and_then(schema::example);
                let value = example.map_or(upper, |text| text.replace(' ', "%20"));
                address.push_str(&format!("{sign}{}={value}", parameter.name));
                sign = '&';
            }
            _ => {}
        }
    }
    let mut arguments = vec!["curl".to_owned()];
    let responds_with = |kind: &str| {
        let answers = operation.responses.responses.values();
        answers
            .filter_map(inline)
            .any(|answer| answer.content.contains_key(kind))
    };
    if responds_with("text/event-stream") {
        arguments.push("-N".to_owned());
    }
    if responds_with("application/wasm") {
        arguments.push("-o plugin.wasm".to_owned());
    }
    if !matches!(method, HttpMethod::Get) {
        arguments.push(format!("-X {}", name(method)));
    }
    let needs_token = operation.security.iter().flatten().count() == 1;
    if needs_token {
        arguments.push("-H \"Authorization: Bearer $TOKEN\"".to_owned());
    }
    if let Some(body) = operation.request_body.as_ref().and_then(inline) {
        for (kind, content) in contents(&body.content) {
            arguments.push(format!("\\\n  -H 'Content-Type: {kind}'"));
            arguments.push(match &content.schema {
                Some(schema) => format!("-d '{}'", sample(schema, components)),
                None => "--data-binary @plugin.wasm".to_owned(),
            });
        }
        arguments.push("\\\n ".to_owned());
    }
    arguments.push(format!("'{address}'"));
    arguments.join(" ")
}
