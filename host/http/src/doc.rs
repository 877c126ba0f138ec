//! What a route says of itself: a builder, so that the table of routes reads as a list of what there is. Path, method
//! and role are no part of it: they stand in the table alone, and `openapi` takes them from there.

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

/// What a route is for, what it takes and what it answers.
#[derive(Clone)]
pub struct Doc {
    pub(crate) tag: Tag,
    pub(crate) id: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) description: &'static str,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) body: Option<RequestBody>,
    pub(crate) answers: Vec<(StatusCode, Response)>,
    pub(crate) refusals: Vec<StatusCode>,
    /// What adds the schemas that it names, when the document is asked for.
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
    /// All of them, in the order in which people read them.
    pub const ALL: [Self; 7] = [
        Self::Tables,
        Self::Host,
        Self::Records,
        Self::Plugins,
        Self::Rebuilds,
        Self::Trials,
        Self::Access,
    ];

    /// Its name and what it has.
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Host => (
                "Host",
                "Whether all is well, how far the projections are, and the API itself.",
            ),
            Self::Tables => ("Tables", "The rows that plugins have made of messages."),
            Self::Records => ("Records", "Dead letters, gaps, the ledger and the audit."),
            Self::Plugins => ("Plugins", "What is installed and runs, and what is set for it."),
            Self::Rebuilds => ("Rebuilds", "Tables that are filled anew beside those in use."),
            Self::Trials => (
                "Trials",
                "A version on trial, where a row comes from, and work that is made again.",
            ),
            Self::Access => ("Access", "Tokens, and whose token a request has."),
        }
    }
}

/// One kind of server-sent event.
pub struct Event {
    name: &'static str,
    description: &'static str,
    data: String,
    schemas: fn(&mut Schemas),
}

/// An event whose data is a `T` as JSON. An event without a name is `message`, as browsers call it.
pub fn event<T: ToSchema>(name: &'static str, description: &'static str) -> Event {
    Event {
        name,
        description,
        data: T::name().into_owned(),
        schemas: Schemas::add_answer::<T>,
    }
}

impl Doc {
    /// `id` names it in programs that are made from the document; `summary` is a line for people.
    pub fn new(tag: Tag, id: &'static str, summary: &'static str) -> Self {
        Self {
            tag,
            id,
            summary,
            description: "",
            parameters: Vec::new(),
            body: None,
            answers: Vec::new(),
            refusals: Vec::new(),
            schemas: Vec::new(),
        }
    }

    /// What else has to be known, in Markdown.
    pub fn says(self, description: &'static str) -> Self {
        Self { description, ..self }
    }

    /// A parameter of the query.
    pub fn query(self, parameter: Query) -> Self {
        self.parameter(parameter.into())
    }

    /// Several parameters of the query.
    pub fn queries(self, parameters: impl IntoIterator<Item = Query>) -> Self {
        parameters.into_iter().fold(self, Self::query)
    }

    /// A parameter of any kind.
    pub fn parameter(mut self, parameter: Parameter) -> Self {
        self.parameters.push(parameter);
        self
    }

    /// A JSON body, which has to be there.
    pub fn takes<T: ToSchema>(self) -> Self {
        self.json_body::<T>(Required::True)
    }

    /// A JSON body that may be left out.
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

    /// A body of another type.
    pub fn takes_bytes(mut self, content_type: &str, description: &str) -> Self {
        let body = RequestBodyBuilder::new().description(Some(description));
        let body = body.content(content_type, ContentBuilder::new().build());
        self.body = Some(body.required(Some(Required::True)).build());
        self
    }

    /// Answers with a `T` as JSON, and 200.
    pub fn answers<T: ToSchema>(self, description: &str) -> Self {
        self.answers_with::<T>(StatusCode::OK, description)
    }

    /// Answers with a `T` as JSON, and this status.
    pub fn answers_with<T: ToSchema>(mut self, status: StatusCode, description: &str) -> Self {
        self.schemas.push(Schemas::add_answer::<T>);
        let content = Content::new(Some(Ref::from_schema_name(T::name())));
        self.content(status, description, "application/json", content)
    }

    /// Answers with a JSON array of `T`.
    pub fn answers_list<T: ToSchema>(mut self, description: &str) -> Self {
        self.schemas.push(Schemas::add_answer::<T>);
        let list = ArrayBuilder::new().items(Ref::from_schema_name(T::name()));
        let content = Content::new(Some(list));
        self.content(StatusCode::OK, description, "application/json", content)
    }

    /// Answers with any JSON object.
    pub fn answers_object(self, description: &str) -> Self {
        let content = Content::new(Some(ObjectBuilder::new().schema_type(Type::Object)));
        self.content(StatusCode::OK, description, "application/json", content)
    }

    /// Answers with text of another type.
    pub fn answers_text(self, content_type: &str, description: &str) -> Self {
        let content = Content::new(Some(ObjectBuilder::new().schema_type(Type::String)));
        self.content(StatusCode::OK, description, content_type, content)
    }

    /// Answers with bytes.
    pub fn answers_bytes(self, content_type: &str, description: &str) -> Self {
        let content = ContentBuilder::new().build();
        self.content(StatusCode::OK, description, content_type, content)
    }

    /// Answers with lines, each a `T` as JSON.
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

    /// Answers with server-sent events. OpenAPI 3.1 has no words for them: what stands in `x-events` and in the
    /// description is Lantern's own.
    pub fn answers_events(mut self, description: &str, events: impl IntoIterator<Item = Event>) -> Self {
        let mut said = description.to_owned();
        let mut kinds = serde_json::Map::new();
        for event in events {
            let Event {
                name,
                description,
                data,
                schemas,
            } = event;
            self.schemas.push(schemas);
            said.push_str(&format!("\n\n- `{name}`, with a {data}: {description}"));
            let data = Ref::from_schema_name(data).ref_location;
            let kind = json!({ "description": description, "data": { "$ref": data } });
            kinds.insert(name.to_owned(), kind);
        }
        let content = ContentBuilder::new()
            .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
            .extensions(Some(extension("events", kinds.into())));
        self.content(StatusCode::OK, &said, "text/event-stream", content.build())
    }

    /// Answers with nothing, and 204.
    pub fn answers_nothing(mut self, description: &str) -> Self {
        let response = ResponseBuilder::new().description(description);
        self.answers.push((StatusCode::NO_CONTENT, response.build()));
        self
    }

    /// A refusal besides those that every route of its kind has.
    pub fn refuses(mut self, status: StatusCode) -> Self {
        self.refusals.push(status);
        self
    }

    /// One status may have several types of content.
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

/// A field of the document that OpenAPI does not know; `x-` is put before its name.
pub(crate) fn extension(name: &str, value: serde_json::Value) -> Extensions {
    Extensions::builder().add(name, value).build()
}
