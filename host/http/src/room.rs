//! Memory for large responses: a handler reserves it before it reads, the gate holds it until the response is sent.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use futures_util::TryStreamExt as _;

use super::budget::{Budget, Client, PAGE_BYTES, PIECE_BYTES, Reservation};
use super::problem::Problem;
use super::state::State;

/// Maximum time that a request waits for memory.
const WAIT: Duration = Duration::from_secs(2);

/// Passes the reservation of a handler to the gate.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot(Arc<Mutex<Option<Reservation>>>);

impl Slot {
    fn take(&self) -> Option<Reservation> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Memory for a large response, as an argument of a handler. If none is available in time, the response is 503.
#[derive(Debug)]
pub struct Room {
    slot: Slot,
    budget: Budget,
    client: Client,
}

impl Room {
    /// Takes the reservation, for a streaming response.
    pub fn take(&self) -> Option<Reservation> {
        self.slot.take()
    }

    /// Reserves memory for another page of the same response; none if it is not available within `wait`.
    pub async fn another(&self, wait: Duration) -> Option<Reservation> {
        self.budget.reserve(&self.client, PAGE_BYTES, wait).await
    }
}

/// The client that the gate identified.
impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or(Self::Unknown))
    }
}

impl FromRequestParts<State> for Room {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Problem> {
        let slot = parts.extensions.get::<Slot>().cloned().unwrap_or_default();
        let Ok(client) = Client::from_request_parts(parts, state).await;
        let budget = state.access.budget().clone();
        let reservation = budget
            .reserve(&client, PAGE_BYTES, WAIT)
            .await
            .ok_or_else(no_room)?;
        *slot.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reservation);
        Ok(Self { slot, budget, client })
    }
}

fn no_room() -> Problem {
    Problem::busy(
        "responses that clients have not read use all memory for responses (http.answer_memory); retry",
    )
}

/// Counts the body of a response until it is sent. The handler of a streaming response counts it itself.
pub(super) fn counted(budget: &Budget, client: &Client, slot: &Slot, response: Response) -> Response {
    let reserved = slot.take();
    let Some(bytes) = response.body().size_hint().exact() else {
        return response;
    };
    let size = usize::try_from(bytes).unwrap_or(usize::MAX);
    if size <= PIECE_BYTES {
        return response;
    }
    let reservation = match reserved {
        Some(mut reserved) => {
            reserved.resize(size);
            Some(reserved)
        }
        None => budget.try_reserve(client, size),
    };
    let Some(reservation) = reservation else {
        return no_room().into_response();
    };
    let mut response = response.map(|body| {
        let parts = body.into_data_stream().inspect_ok(move |_| {
            // Held as long as the body.
            let _ = &reservation;
        });
        Body::from_stream(parts)
    });
    response
        .headers_mut()
        .insert(header::CONTENT_LENGTH, bytes.into());
    response
}
