//! The API described for programs and people: an OpenAPI 3.1 document and a page, both made of the table of routes when
//! the router is. Paths, methods and roles come from the table, everything else from what each route says of itself
//! ([`Doc`]). Neither holds anything of the data, so they are open as the dashboard's page is.

mod page;
pub(super) mod serve;

use axum::http::{Method, StatusCode};
use utoipa::ToSchema as _;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::info::LicenseBuilder;
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn,
};
use utoipa::openapi::schema::{KnownFormat, SchemaFormat, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::server::ServerBuilder;
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, Content, InfoBuilder, ObjectBuilder, OpenApi, OpenApiBuilder, PathItem, PathsBuilder,
    Ref, RefOr, Required, Response as Answer, ResponseBuilder,
};

use super::doc::{Doc, Schemas, Tag, extension};
use super::gate::Needs;
use super::routes::Route;
use lantern_api as api;

/// The security scheme's name in the document.
const BEARER: &str = "bearer";

/// What the document says before everything else.
const INTRODUCTION: &str = "\
Lantern projects event streams into tables. Everything is under `/api/v1`, answered in JSON, and refused as \
problem+json (RFC 9457).

A change needs an operator's token, everywhere, and stands in the audit. A read needs a viewer's token; on the \
loopback interface, by one of this machine's own names, it needs none. HEAD is answered wherever GET is.

A field that can be null is always there; one that is left out is never null. Times are RFC 3339. A whole number \
may have 64 bits, which is more than a double holds.";

/// The document of these routes.
pub fn build(table: &[Route]) -> OpenApi {
    let mut paths = PathsBuilder::new();
    let (schemas, _) = schemas(table).into_parts();
    for route in table {
        let Some(doc) = &route.doc else { continue };
        // A path that is there already gets one more operation.
        paths = paths.path(
            route.path,
            PathItem::new(method(&route.method), operation(route, doc)),
        );
    }
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .responses_from_iter(REFUSALS.map(|(status, name, words)| (name, refusal(status, words))))
        .security_scheme(BEARER, bearer());
    let tags = Tag::ALL.map(|tag| {
        let (name, description) = tag.words();
        TagBuilder::new()
            .name(name)
            .description(Some(description))
            .build()
    });
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Lantern")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(INTRODUCTION))
                .license(Some(
                    LicenseBuilder::new()
                        .name("Apache-2.0")
                        .identifier(Some("Apache-2.0"))
                        .build(),
                )),
        )
        .servers(Some([ServerBuilder::new()
            .url("/")
            .description(Some(
                "The host that serves this document; by itself http://localhost:7070.",
            ))
            .build()]))
        .tags(Some(tags))
        .paths(paths)
        .components(Some(components.build()))
        .build()
}

fn schemas(table: &[Route]) -> Schemas {
    let mut schemas = Schemas::default();
    schemas.add_answer::<api::Problem>();
    let docs = table.iter().filter_map(|route| route.doc.as_ref());
    docs.flat_map(|doc| &doc.schemas)
        .for_each(|add| add(&mut schemas));
    schemas
}

fn bearer() -> SecurityScheme {
    let words = "A token, as `lantern token create` or POST /api/v1/tokens gives it.";
    SecurityScheme::Http(
        HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(words))
            .build(),
    )
}

fn method(method: &Method) -> HttpMethod {
    match *method {
        Method::POST => HttpMethod::Post,
        Method::PUT => HttpMethod::Put,
        Method::DELETE => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}

fn operation(route: &Route, doc: &Doc) -> Operation {
    let (tag, _) = doc.tag.words();
    let mut operation = OperationBuilder::new()
        .tag(tag)
        .operation_id(Some(doc.id))
        .summary(Some(doc.summary))
        .description(Some(description(route, doc)))
        .extensions(Some(extension("role", role(route.needs).into())))
        .securities(Some(securities(route.needs)))
        .request_body(doc.body.clone());
    for parameter in in_path(route.path)
        .into_iter()
        .chain(doc.parameters.iter().cloned())
    {
        operation = operation.parameter(parameter);
    }
    for (status, answer) in &doc.answers {
        operation = operation.response(status.as_str(), answer.clone());
    }
    for (status, name, _) in REFUSALS {
        if refuses(route, doc, status) {
            operation = operation.response(status.as_str(), Ref::from_response_name(name));
        }
    }
    operation.build()
}

fn description(route: &Route, doc: &Doc) -> String {
    let needs = match route.needs {
        Needs::Nothing => "Everybody who can connect may ask.".to_owned(),
        Needs::Viewer => match route.recorded {
            Some(action) => format!(
                "Needs a viewer's token; on the loopback interface none. A read with a token stands in the audit as \
                 `{action}`."
            ),
            None => "Needs a viewer's token; on the loopback interface none.".to_owned(),
        },
        Needs::Operator => match route.action.or(route.recorded) {
            Some(action) => format!("Needs an operator's token, and stands in the audit as `{action}`."),
            None => "Needs an operator's token.".to_owned(),
        },
    };
    match doc.description {
        "" => needs,
        said => format!("{said}\n\n{needs}"),
    }
}

fn role(needs: Needs) -> &'static str {
    match needs {
        Needs::Nothing => "none",
        Needs::Viewer => "viewer",
        Needs::Operator => "operator",
    }
}

/// One of these is enough.
fn securities(needs: Needs) -> Vec<SecurityRequirement> {
    let token = || SecurityRequirement::new(BEARER, [role(needs)]);
    match needs {
        Needs::Nothing => Vec::new(),
        Needs::Viewer => vec![token(), SecurityRequirement::default()],
        Needs::Operator => vec![token()],
    }
}

/// Refusals, by their names in the document.
const REFUSALS: [(StatusCode, &str, &str); 13] = [
    (
        StatusCode::BAD_REQUEST,
        "BadRequest",
        "The request cannot be understood.",
    ),
    (
        StatusCode::UNAUTHORIZED,
        "Unauthorized",
        "A good token is needed.",
    ),
    (
        StatusCode::FORBIDDEN,
        "Forbidden",
        "The token does not allow this, or the request comes from a foreign page.",
    ),
    (StatusCode::NOT_FOUND, "NotFound", "There is no such thing."),
    (
        StatusCode::REQUEST_TIMEOUT,
        "Timeout",
        "The body took too long to arrive.",
    ),
    (
        StatusCode::CONFLICT,
        "Conflict",
        "This does not go together with what is there.",
    ),
    (
        StatusCode::PAYLOAD_TOO_LARGE,
        "TooLarge",
        "The body is larger than it may be.",
    ),
    (
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "WrongType",
        "The body is not of the right type.",
    ),
    (
        StatusCode::MISDIRECTED_REQUEST,
        "WrongHost",
        "This host does not answer to that name.",
    ),
    (
        StatusCode::UNPROCESSABLE_ENTITY,
        "Refused",
        "It was understood, and cannot be done: the detail says why.",
    ),
    (
        StatusCode::TOO_MANY_REQUESTS,
        "TooMany",
        "Too many attempts with bad tokens.",
    ),
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        "Failed",
        "The host failed; its log says why.",
    ),
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "Busy",
        "Too much to do, or it took too long; it may be tried again.",
    ),
];

/// Whether a route can answer in this way: because of what stands before it, or because it says so.
fn refuses(route: &Route, doc: &Doc, status: StatusCode) -> bool {
    let is_change = route.action.is_some();
    let by_itself = match status {
        StatusCode::BAD_REQUEST
        | StatusCode::FORBIDDEN
        | StatusCode::MISDIRECTED_REQUEST
        | StatusCode::INTERNAL_SERVER_ERROR => true,
        // Health is told in the status.
        StatusCode::SERVICE_UNAVAILABLE => doc.answers.iter().all(|(other, _)| *other != status),
        StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS => route.needs != Needs::Nothing,
        StatusCode::NOT_FOUND => route.path.contains('{'),
        StatusCode::PAYLOAD_TOO_LARGE => true,
        StatusCode::UNSUPPORTED_MEDIA_TYPE | StatusCode::REQUEST_TIMEOUT => is_change && doc.body.is_some(),
        _ => false,
    };
    by_itself || doc.refusals.contains(&status)
}

fn refusal(status: StatusCode, words: &str) -> RefOr<Answer> {
    let problem = Content::new(Some(Ref::from_schema_name(api::Problem::name())));
    let mut answer = ResponseBuilder::new()
        .description(words)
        .content("application/problem+json", problem);
    let text = || ObjectBuilder::new().schema_type(Type::String);
    if status == StatusCode::UNAUTHORIZED {
        let header = HeaderBuilder::new()
            .schema(Some(text()))
            .description(Some("`Bearer`."));
        answer = answer.header("WWW-Authenticate", header.build());
    }
    if matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    ) {
        let seconds = HeaderBuilder::new()
            .schema(Some(ObjectBuilder::new().schema_type(Type::Integer)))
            .description(Some("After how many seconds it may be tried again."));
        answer = answer.header("Retry-After", seconds.build());
    }
    answer.build().into()
}

/// The parameters that stand in a path.
fn in_path(path: &str) -> Vec<Parameter> {
    let names = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    names.map(|name| path_parameter(path, name)).collect()
}

fn path_parameter(path: &str, name: &str) -> Parameter {
    let text = |pattern: &str| {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some(pattern))
    };
    let number = || {
        let format = SchemaFormat::KnownFormat(KnownFormat::Int64);
        ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(format))
    };
    let (description, schema) = match name {
        "table" => ("The table's name.", text("^[a-z][a-z0-9_]{0,62}$")),
        "plugin" => ("The plugin's name.", text("^[a-z][a-z0-9-]{0,62}$")),
        "source" => (
            "The source's name within the plugin.",
            text("^[a-z][a-z0-9_-]{0,63}$"),
        ),
        "row" => ("The text that the row has as `_row`.", text("^-?[0-9]+$")),
        "id" if path.contains("dead-letters") => ("The letter's number.", number()),
        "id" => ("The rebuild's number.", number()),
        "name" => ("What the token is called.", text("^[a-z][a-z0-9_-]{0,62}$")),
        _ => ("", text("")),
    };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(description))
        .schema(Some(schema))
        .build()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::router;

    #[test]
    fn every_name_stands_for_one_thing() {
        let table = router::all(1).table();
        let (schemas, ambiguous) = schemas(&table).into_parts();
        assert!(ambiguous.is_empty(), "{ambiguous:?}");
        assert!(schemas.len() > 50);
        let docs: Vec<&Doc> = table.iter().filter_map(|route| route.doc.as_ref()).collect();
        let ids: BTreeSet<&str> = docs.iter().map(|doc| doc.id).collect();
        assert_eq!(ids.len(), docs.len());
    }

    #[test]
    fn every_parameter_of_a_path_is_described() {
        for route in router::all(1).table() {
            for parameter in in_path(route.path).iter().filter(|_| route.doc.is_some()) {
                assert_ne!(parameter.description.as_deref(), Some(""), "{}", route.path);
            }
        }
    }
}
