//! The authority that a server's certificate is checked against.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use reunion_sdk::{ErrorClass, PluginError};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::config::Tls;

/// More than the authorities of the whole world take.
const CA_BYTES_MAX: u64 = 4 << 20;

/// The certificates of `tls.ca`, as PEM. The driver reads the file only when a server has answered, takes one without
/// a certificate for none at all, and its errors name no key.
///
/// # Errors
/// Invalid config, where the file cannot be read or holds something else.
pub fn authority(tls: &Tls) -> Result<Option<Vec<u8>>, PluginError> {
    let Some(path) = &tls.ca else { return Ok(None) };
    let pem = read(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => unusable(path, "there is no such file"),
        kind => unusable(path, &kind.to_string()),
    })?;
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().unwrap_or_default();
    if certificates.is_empty() {
        return Err(unusable(path, "it holds no certificate in PEM form"));
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(|error| unusable(path, &error.to_string()))?;
    }
    Ok(Some(pem))
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut pem = Vec::new();
    File::open(path)?.take(CA_BYTES_MAX + 1).read_to_end(&mut pem)?;
    if pem.len() as u64 > CA_BYTES_MAX { Err(ErrorKind::FileTooLarge.into()) } else { Ok(pem) }
}

fn unusable(path: &Path, why: &str) -> PluginError {
    PluginError::new(ErrorClass::InvalidConfig, format!("the authority's certificate {} cannot be used: {why}", path.display()))
        .key("tls.ca")
        .hint("a PEM file begins with -----BEGIN CERTIFICATE-----")
}
