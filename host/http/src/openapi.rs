//! Builds the OpenAPI 3.1 document from the table of routes: paths, methods and roles come from the table, everything
//! else from the description of each route ([`Doc`]). `serve` serves it as JSON and as a page. The document contains no
//! data, so it needs no token.

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
use lantern_model::identity::RowIdentity;

/// The security scheme's name in the document.
const BEARER: &str = "bearer";

/// Introduction of the document.
const INTRODUCTION: &str = "\
Lantern projects event streams into tables. All routes are under `/api/v1`. Responses are JSON, errors are \
problem+json (RFC 9457).

Changes require a token with the role operator and are written to the audit. Reads require a token with the role \
viewer; requests over the loopback interface to a local host name need none. HEAD is supported wherever GET is.

A nullable field is always present; an optional field is never null. Times are RFC 3339. Integers may have 64 bits, \
more than a double represents exactly.";

/// The document of these routes.
pub fn build(table: &[Route]) -> OpenApi {
    let mut paths = PathsBuilder::new();
    let (schemas, _) = schemas(table).into_parts();
    for route in table {
        let Some(doc) = &route.doc else { continue };
        // utoipa merges the operations of equal paths.
        paths = paths.path(
            route.path,
            PathItem::new(method(&route.method), operation(route, doc)),
        );
    }
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .responses_from_iter(
            ERROR_RESPONSES.map(|(status, name, description)| (name, error_response(status, description))),
        )
        .security_scheme(BEARER, bearer());
    let tags = Tag::ALL.map(|tag| {
        let (name, description) = tag.name_and_description();
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
                "The host that serves this document; http://localhost:7070 by default.",
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
    let description = "An API token from `lantern token create` or POST /api/v1/tokens.";
    SecurityScheme::Http(
        HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(description))
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
    let (tag, _) = doc.tag.name_and_description();
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
    for (status, name, _) in ERROR_RESPONSES {
        if can_fail_with(route, doc, status) {
            operation = operation.response(status.as_str(), Ref::from_response_name(name));
        }
    }
    operation.build()
}

fn description(route: &Route, doc: &Doc) -> String {
    let needs = match route.needs {
        Needs::Nothing => "Requires no token.".to_owned(),
        Needs::Viewer => match route.recorded {
            Some(action) => format!(
                "Requires a token with the role viewer; none over the loopback interface. With a token, the audit \
                 records it as `{action}`."
            ),
            None => "Requires a token with the role viewer; none over the loopback interface.".to_owned(),
        },
        Needs::Operator => match route.action.or(route.recorded) {
            Some(action) => {
                format!("Requires a token with the role operator. The audit records it as `{action}`.")
            }
            None => "Requires a token with the role operator.".to_owned(),
        },
    };
    match doc.description {
        "" => needs,
        text => format!("{text}\n\n{needs}"),
    }
}

fn role(needs: Needs) -> &'static str {
    match needs {
        Needs::Nothing => "none",
        Needs::Viewer => "viewer",
        Needs::Operator => "operator",
    }
}

/// Alternative security requirements.
fn securities(needs: Needs) -> Vec<SecurityRequirement> {
    let token = || SecurityRequirement::new(BEARER, [role(needs)]);
    match needs {
        Needs::Nothing => Vec::new(),
        Needs::Viewer => vec![token(), SecurityRequirement::default()],
        Needs::Operator => vec![token()],
    }
}

/// Error responses, by their names in the document.
const ERROR_RESPONSES: [(StatusCode, &str, &str); 13] = [
    (StatusCode::BAD_REQUEST, "BadRequest", "The request is invalid."),
    (
        StatusCode::UNAUTHORIZED,
        "Unauthorized",
        "The request needs a valid token.",
    ),
    (
        StatusCode::FORBIDDEN,
        "Forbidden",
        "The role of the token is insufficient, or the request comes from a page of another origin.",
    ),
    (StatusCode::NOT_FOUND, "NotFound", "The resource does not exist."),
    (
        StatusCode::REQUEST_TIMEOUT,
        "Timeout",
        "The host did not receive the body in time.",
    ),
    (
        StatusCode::CONFLICT,
        "Conflict",
        "The request conflicts with the current state.",
    ),
    (
        StatusCode::PAYLOAD_TOO_LARGE,
        "TooLarge",
        "The body exceeds the size limit.",
    ),
    (
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "WrongType",
        "The body has an unsupported media type.",
    ),
    (
        StatusCode::MISDIRECTED_REQUEST,
        "WrongHost",
        "The Host header does not name this host.",
    ),
    (
        StatusCode::UNPROCESSABLE_ENTITY,
        "Refused",
        "The request is valid but the host cannot carry it out; see `detail`.",
    ),
    (
        StatusCode::TOO_MANY_REQUESTS,
        "TooMany",
        "Too many attempts with invalid tokens.",
    ),
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        "Failed",
        "Internal error; see the log of the host.",
    ),
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "Busy",
        "The host is busy or the request timed out; retry later.",
    ),
];

/// Whether a route can answer with this error: because of the checks before its handler, or by its own description.
fn can_fail_with(route: &Route, doc: &Doc, status: StatusCode) -> bool {
    let is_change = route.action.is_some();
    let by_default = match status {
        StatusCode::BAD_REQUEST
        | StatusCode::FORBIDDEN
        | StatusCode::MISDIRECTED_REQUEST
        | StatusCode::INTERNAL_SERVER_ERROR => true,
        // Health routes use this status for their own result.
        StatusCode::SERVICE_UNAVAILABLE => doc.answers.iter().all(|(other, _)| *other != status),
        StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS => route.needs != Needs::Nothing,
        StatusCode::NOT_FOUND => route.path.contains('{'),
        StatusCode::PAYLOAD_TOO_LARGE => true,
        StatusCode::UNSUPPORTED_MEDIA_TYPE | StatusCode::REQUEST_TIMEOUT => is_change && doc.body.is_some(),
        _ => false,
    };
    by_default || doc.errors.contains(&status)
}

fn error_response(status: StatusCode, description: &str) -> RefOr<Answer> {
    let problem = Content::new(Some(Ref::from_schema_name(api::Problem::name())));
    let mut answer = ResponseBuilder::new()
        .description(description)
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
            .description(Some("Seconds to wait before retrying."));
        answer = answer.header("Retry-After", seconds.build());
    }
    answer.build().into()
}

/// Parameters of a path.
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
        "table" => ("Table name.", text("^[a-z][a-z0-9_]{0,62}$")),
        "plugin" => ("Plugin name.", text("^[a-z][a-z0-9-]{0,62}$")),
        "source" => ("Source name within the plugin.", text("^[a-z][a-z0-9_-]{0,63}$")),
        "row" => ("Row identity: the value of `_id`.", text(RowIdentity::PATTERN)),
        "id" if path.contains("dead-letters") => ("Identifier of the dead letter.", number()),
        "id" => ("Identifier of the rebuild.", number()),
        "name" => ("Name of the token.", text("^[a-z][a-z0-9_-]{0,62}$")),
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
    fn schema_names_and_operation_ids_are_unique() {
        let table = router::all(1).table();
        let (schemas, ambiguous) = schemas(&table).into_parts();
        assert!(ambiguous.is_empty(), "{ambiguous:?}");
        assert!(schemas.len() > 50);
        let docs: Vec<&Doc> = table.iter().filter_map(|route| route.doc.as_ref()).collect();
        let ids: BTreeSet<&str> = docs.iter().map(|doc| doc.id).collect();
        assert_eq!(ids.len(), docs.len());
    }

    #[test]
    fn all_path_parameters_have_descriptions() {
        for route in router::all(1).table() {
            for parameter in in_path(route.path).iter().filter(|_| route.doc.is_some()) {
                assert_ne!(parameter.description.as_deref(), Some(""), "{}", route.path);
            }
        }
    }
}
