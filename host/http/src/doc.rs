//! Descriptions of routes for the OpenAPI document. Path, method and role are not part of a description: `openapi` takes
//! them from the table of routes.

mod parameter;
mod schemas;

use std::fmt;

use axum::http::StatusCode;
use serde_json::json;
use utoipa::ToSchema;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::path::Parameter;
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, Type};
use utoipa::openapi::{Content, Ref, Required, Response, ResponseBuilder};

pub use parameter::{Query, choice, header, list, number, repeated, text, time};
pub use schemas::Schemas;

/// Description of a route: purpose, parameters, body and responses.
#[derive(Clone)]
pub struct Doc {
    pub(crate) tag: Tag,
    pub(crate) id: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) description: &'static str,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) body: Option<RequestBody>,
    pub(crate) answers: Vec<(StatusCode, Response)>,
    pub(crate) errors: Vec<StatusCode>,
    /// Functions that add the referenced schemas when the document is built.
    pub(crate) schemas: Vec<fn(&mut Schemas)>,
}

/// A group of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    Host,
    Tables,
    Records,
    Plugins,
    Rebuilds,
    Trials,
    Access,
}

impl Tag {
    /// All groups in the order of the document.
    pub const ALL: [Self; 7] = [
        Self::Tables,
        Self::Host,
        Self::Records,
        Self::Plugins,
        Self::Rebuilds,
        Self::Trials,
        Self::Access,
    ];

    /// Name and description of the group.
    pub fn name_and_description(self) -> (&'static str, &'static str) {
        match self {
            Self::Host => ("Host", "Health, progress of projections, and the API itself."),
            Self::Tables => ("Tables", "Rows that plugins produced from messages."),
            Self::Records => ("Records", "Dead letters, gaps, the ledger and the audit."),
            Self::Plugins => ("Plugins", "Installed plugins, their versions and settings."),
            Self::Rebuilds => ("Rebuilds", "Rebuilds of tables in the background."),
            Self::Trials => ("Trials", "Canaries, traces of rows, and reprojections."),
            Self::Access => ("Access", "API tokens."),
        }
    }
}

/// A server-sent event.
pub struct Event {
    name: &'static str,
    description: &'static str,
    data: String,
    schemas: fn(&mut Schemas),
}

/// An event whose data is a `T` as JSON. `message` is the name that browsers give to an event without one.
pub fn event<T: ToSchema>(name: &'static str, description: &'static str) -> Event {
    Event {
        name,
        description,
        data: T::name().into_owned(),
        schemas: Schemas::add_answer::<T>,
    }
}

impl Doc {
    /// `id` is the operation id for generated clients; `summary` is one line.
    pub fn new(tag: Tag, id: &'static str, summary: &'static str) -> Self {
        Self {
            tag,
            id,
            summary,
            description: "",
            parameters: Vec::new(),
            body: None,
            answers: Vec::new(),
            errors: Vec::new(),
            schemas: Vec::new(),
        }
    }

    /// Adds a description in Markdown.
    pub fn description(self, description: &'static str) -> Self {
        Self { description, ..self }
    }

    /// Adds a query parameter.
    pub fn query(self, parameter: Query) -> Self {
        self.parameter(parameter.into())
    }

    /// Adds several query parameters.
    pub fn queries(self, parameters: impl IntoIterator<Item = Query>) -> Self {
        parameters.into_iter().fold(self, Self::query)
    }

    /// Adds a parameter of any kind.
    pub fn parameter(mut self, parameter: Parameter) -> Self {
        self.parameters.push(parameter);
        self
    }

    /// Requires a JSON body.
    pub fn takes<T: ToSchema>(self) -> Self {
        self.json_body::<T>(Required::True)
    }

    /// Accepts an optional JSON body.
    pub fn may_take<T: ToSchema>(self) -> Self {
        self.json_body::<T>(Required::False)
    }

    fn json_body<T: ToSchema>(mut self, required: Required) -> Self {
        self.schemas.push(Schemas::add::<T>);
        let content = Content::new(Some(Ref::from_schema_name(T::name())));
        let body = RequestBodyBuilder::new().content("application/json", content);
        self.body = Some(body.required(Some(required)).build());
        self
    }

    /// Requires a body of another media type.
    pub fn takes_bytes(mut self, content_type: &str, description: &str) -> Self {
        let body = RequestBodyBuilder::new().description(Some(description));
        let body = body.content(content_type, ContentBuilder::new().build());
        self.body = Some(body.required(Some(Required::True)).build());
        self
    }

    /// Responds with 200 and a `T` as JSON.
    pub fn answers<T: ToSchema>(self, description: &str) -> Self {
        self.answers_with::<T>(StatusCode::OK, description)
    }

    /// Responds with this status and a `T` as JSON.
    pub fn answers_with<T: ToSchema>(mut self, status: StatusCode, description: &str) -> Self {
        self.schemas.push(Schemas::add_answer::<T>);
        let content = Content::new(Some(Ref::from_schema_name(T::name())));
        self.content(status, description, "application/json", content)
    }

    /// Responds with a JSON array of `T`.
    pub fn answers_list<T: ToSchema>(mut self, description: &str) -> Self {
        self.schemas.push(Schemas::add_answer::<T>);
        let list = ArrayBuilder::new().items(Ref::from_schema_name(T::name()));
        let content = Content::new(Some(list));
        self.content(StatusCode::OK, description, "application/json", content)
    }

    /// Responds with any JSON object.
    pub fn answers_object(self, description: &str) -> Self {
        let content = Content::new(Some(ObjectBuilder::new().schema_type(Type::Object)));
        self.content(StatusCode::OK, description, "application/json", content)
    }

    /// Responds with text of another media type.
    pub fn answers_text(self, content_type: &str, description: &str) -> Self {
        let content = Content::new(Some(ObjectBuilder::new().schema_type(Type::String)));
        self.content(StatusCode::OK, description, content_type, content)
    }

    /// Responds with bytes.
    pub fn answers_bytes(self, content_type: &str, description: &str) -> Self {
        let content = ContentBuilder::new().build();
        self.content(StatusCode::OK, description, content_type, content)
    }

    /// Responds with JSON lines, each a `T`.
    pub fn answers_lines<T: ToSchema>(mut self, description: &str) -> Self {
        self.schemas.push(Schemas::add_answer::<T>);
        let line = Ref::from_schema_name(T::name()).ref_location;
        let content = ContentBuilder::new()
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
            .extensions(Some(extension("line", json!({ "$ref": line }))));
        self.content(
            StatusCode::OK,
            description,
            "application/x-ndjson",
            content.build(),
        )
    }

    /// Responds with server-sent events. OpenAPI 3.1 cannot describe them: Lantern adds the extension `x-events` and a
    /// list in the description.
    pub fn answers_events(mut self, description: &str, events: impl IntoIterator<Item = Event>) -> Self {
        let mut text = description.to_owned();
        let mut kinds = serde_json::Map::new();
        for event in events {
            let Event {
                name,
                description,
                data,
                schemas,
            } = event;
            self.schemas.push(schemas);
            text.push_str(&format!("\n\n- `{name}` ({data}): {description}"));
            let data = Ref::from_schema_name(data).ref_location;
            let kind = json!({ "description": description, "data": { "$ref": data } });
            kinds.insert(name.to_owned(), kind);
        }
        let content = ContentBuilder::new()
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
            .extensions(Some(extension("events", kinds.into())));
        self.content(StatusCode::OK, &text, "text/event-stream", content.build())
    }

    /// Responds with 204 and no body.
    pub fn answers_nothing(mut self, description: &str) -> Self {
        let response = ResponseBuilder::new().description(description);
        self.answers.push((StatusCode::NO_CONTENT, response.build()));
        self
    }

    /// Adds an error response to those that all routes of this kind have.
    pub fn fails_with(mut self, status: StatusCode) -> Self {
        self.errors.push(status);
        self
    }

    /// Adds a media type to the response with this status.
    fn content(
        mut self,
        status: StatusCode,
        description: &str,
        content_type: &str,
        content: Content,
    ) -> Self {
        let known = self.answers.iter_mut().find(|(known, _)| *known == status);
        match known {
            Some((_, response)) => {
                response.content.insert(content_type.to_owned(), content.into());
            }
            None => {
                let response = ResponseBuilder::new().description(description);
                let response = response.content(content_type, content);
                self.answers.push((status, response.build()));
            }
        }
        self
    }
}

impl fmt::Debug for Doc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doc")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// An OpenAPI extension; utoipa adds the prefix `x-` to its name.
pub(crate) fn extension(name: &str, value: serde_json::Value) -> Extensions {
    Extensions::builder().add(name, value).build()
}
