//! TLS to the server, with the parameters `sslmode` and `sslrootcert` of an address and the meaning that they have in libpq:
//! `require` encrypts, `verify-ca` also verifies that an authority has signed the certificate, and `verify-full` also that it
//! belongs to the name of the server. The driver knows neither the last two nor the file of the authorities.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use percent_encoding::percent_decode_str;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslMode;
use tokio_postgres::{CancelToken, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::sql::Error;

/// How a connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// The protection that an address requires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tls {
    /// None if the address does not contain it.
    mode: Option<Mode>,
    /// The file with the certificates of the authorities; those of the system without one.
    authorities: Option<PathBuf>,
}

impl Tls {
    /// Takes the parameters of TLS out of an address. Returns the rest of the address; none if `sslmode` has an unknown value.
    pub(crate) fn take_from(address: &str) -> Option<(Self, String)> {
        let mut tls = Self {
            mode: None,
            authorities: None,
        };
        let Some((path, query)) = address.split_once('?') else {
            return Some((tls, address.to_owned()));
        };
        let mut rest = Vec::new();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = percent_decode_str(value).decode_utf8_lossy();
            match name {
                "sslmode" => tls.mode = Some(Mode::parse(&value)?),
                "sslrootcert" if value == "system" => tls.authorities = None,
                "sslrootcert" => tls.authorities = Some(PathBuf::from(value.as_ref())),
                _ => rest.push(pair),
            }
        }
        Some((tls, format!("{path}?{}", rest.join("&"))))
    }

    /// The protection, with the default for addresses that do not contain it: none on this machine, otherwise TLS if the
    /// server has it.
    pub(crate) fn or_default(mut self, is_local: bool) -> Self {
        let default = if is_local { Mode::Disable } else { Mode::Prefer };
        self.mode.get_or_insert(default);
        self
    }

    fn mode(&self) -> Mode {
        self.mode.unwrap_or(Mode::Prefer)
    }

    /// The part of the protection that the driver knows.
    pub(crate) fn ssl_mode(&self) -> SslMode {
        match self.mode() {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
        }
    }

    /// Reads the certificates of the authorities. Another file has effect for the next session.
    ///
    /// # Errors
    /// [`Error::Tls`].
    pub(crate) fn connector(&self) -> Result<Connector, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match (self.mode(), &self.authorities) {
            (Mode::Disable, _) => return Ok(Connector::Plain),
            (Mode::Prefer, _) | (Mode::Require, None) => Arc::new(Unverified(provider.clone())),
            // As in libpq, a file of authorities is a request to use it.
            (Mode::Require | Mode::VerifyCa, _) => Arc::new(AnyName(self.verifier(&provider)?)),
            (Mode::VerifyFull, _) => self.verifier(&provider)?,
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Tls(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Connector::Tls(MakeRustlsConnect::new(config)))
    }

    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, Error> {
        let mut authorities = RootCertStore::empty();
        match &self.authorities {
            Some(file) => {
                for certificate in read_certificates(file)? {
                    let added = authorities.add(certificate);
                    added.map_err(|error| unreadable(file, &error))?;
                }
            }
            None => {
                let (_added, _ignored) =
                    authorities.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        WebPkiServerVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(provider))
            .build()
            .map_err(|error| Error::Tls(format!("no authority is known: {error}")))
    }
}

impl Mode {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "disable" => Self::Disable,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => return None,
        })
    }
}

fn read_certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = CertificateDer::pem_file_iter(file).map_err(|error| unreadable(file, &error))?;
    let certificates: Vec<_> = certificates
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable(file, &error))?;
    match certificates.is_empty() {
        true => Err(unreadable(file, &"it contains no certificate")),
        false => Ok(certificates),
    }
}

fn unreadable(file: &Path, reason: &dyn std::fmt::Display) -> Error {
    Error::Tls(format!("sslrootcert {}: {reason}", file.display()))
}

/// What a session connects and cancels with.
#[derive(Clone)]
pub(crate) enum Connector {
    Plain,
    Tls(MakeRustlsConnect),
}

impl Connector {
    /// Cancels the statement of a session.
    pub(super) async fn cancel(&self, token: &CancelToken) -> Result<(), tokio_postgres::Error> {
        match self {
            Self::Plain => token.cancel_query(NoTls).await,
            Self::Tls(connect) => token.cancel_query(connect.clone()).await,
        }
    }
}

/// Accepts every certificate: the connection is encrypted, but its other end is unknown.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

/// Accepts the certificate of another server if an authority has signed it.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self
            .0
            .verify_server_cert(certificate, intermediates, name, ocsp, now);
        match verified {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
