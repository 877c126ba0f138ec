//! Connections to a host that has proved its identity.
//!
//! The host proves its identity at the start of each connection, so no other process can take over between the proof and
//! the request with the token.

use std::time::{Duration, Instant};

use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{ConnectionDetails, Connector, NextTimeout, TcpConnector, Transport};

use lantern_api::Proof;
use lantern_trust::identity::{Identity, Nonce, PROOF_PATH};

/// Largest response with a proof; a host sends about 700 bytes.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// Timeout for the whole proof, also for a program that sends single bytes slowly.
const PROOF_TIME: Duration = Duration::from_secs(10);

/// Why the identity of the program at a host's address is not proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unproven {
    /// The response is not a proof.
    #[error("the program at this address returned no proof of identity")]
    NoProof,
    /// The proof was made with another key, for another address or for another nonce.
    #[error("the program at this address does not have the key of this data directory")]
    WrongProof,
    /// No nonce could be generated.
    #[error("failed to obtain random numbers from the system")]
    Random,
}

/// Creates an agent that connects only to this host.
pub(super) fn agent(config: ureq::config::Config, identity: Identity) -> ureq::Agent {
    let connector = ().chain(TcpConnector::default()).chain(Verifying(identity));
    ureq::Agent::with_parts(config, connector, DefaultResolver::default())
}

/// Passes on only connections to this host.
#[derive(Debug)]
struct Verifying(Identity);

impl<In: Transport> Connector<In> for Verifying {
    type Out = In;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<In>, ureq::Error> {
        let Some(mut transport) = chained else {
            return Ok(None);
        };
        let authority = details.uri.authority().map(|authority| authority.as_str());
        self.verify(&mut transport, authority.unwrap_or_default(), details.timeout)?;
        Ok(Some(transport))
    }
}

impl Verifying {
    fn verify(
        &self,
        transport: &mut impl Transport,
        authority: &str,
        timeout: NextTimeout,
    ) -> Result<(), ureq::Error> {
        let nonce = Nonce::random().map_err(|_| unproven(Unproven::Random))?;
        let request = format!(
            "GET {PROOF_PATH}?nonce={nonce} HTTP/1.1\r\nhost: {authority}\r\naccept: application/json\r\n\r\n"
        );
        let output = transport.buffers().output();
        let room = output
            .get_mut(..request.len())
            .ok_or_else(|| unproven(Unproven::NoProof))?;
        room.copy_from_slice(request.as_bytes());
        transport.transmit_output(request.len(), timeout)?;
        let proof = read_proof(transport, timeout)?;
        match self.0.accepts(nonce, &proof) {
            true => Ok(()),
            false => Err(unproven(Unproven::WrongProof)),
        }
    }
}

fn unproven(why: Unproven) -> ureq::Error {
    ureq::Error::Other(Box::new(why))
}

fn read_proof(transport: &mut impl Transport, timeout: NextTimeout) -> Result<String, ureq::Error> {
    let deadline = Instant::now() + PROOF_TIME;
    loop {
        let more = transport.await_input(timeout)?;
        let input = transport.buffers().input();
        match parse(input) {
            // Bytes after the response would be parsed as the response to the next request.
            Answer::Proof { proof, bytes } if bytes == input.len() => {
                transport.buffers().input_consume(bytes);
                return Ok(proof);
            }
            Answer::Incomplete if more && input.len() < ANSWER_BYTES_MAX && Instant::now() < deadline => {}
            _ => return Err(unproven(Unproven::NoProof)),
        }
    }
}

/// State of the received response.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Incomplete,
    /// Complete, with its length in bytes.
    Proof {
        proof: String,
        bytes: usize,
    },
    Other,
}

fn parse(input: &[u8]) -> Answer {
    let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Answer::Incomplete;
    };
    let Ok(head) = std::str::from_utf8(&input[..end]) else {
        return Answer::Other;
    };
    let mut lines = head.split("\r\n");
    if !lines
        .next()
        .is_some_and(|status| status.starts_with("HTTP/1.1 200"))
    {
        return Answer::Other;
    }
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse::<usize>().ok());
    let Some(length) = length.filter(|length| *length < ANSWER_BYTES_MAX) else {
        return Answer::Other;
    };
    let bytes = end + 4 + length;
    match input.get(end + 4..bytes).map(serde_json::from_slice::<Proof>) {
        None => Answer::Incomplete,
        Some(Ok(body)) => Answer::Proof {
            proof: body.proof,
            bytes,
        },
        Some(Err(_)) => Answer::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_response_is_incomplete() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"proof\":\"x\"}";
        for end in 0..whole.len() {
            assert_eq!(parse(&whole[..end]), Answer::Incomplete, "{end}");
        }
        let proof = "x".to_owned();
        let bytes = whole.len();
        assert_eq!(parse(whole), Answer::Proof { proof, bytes });
        for other in [
            &b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
            b"SSH-2.0-x\r\n\r\n",
        ] {
            assert_eq!(parse(other), Answer::Other);
        }
    }
}
