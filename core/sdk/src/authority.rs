//! The authority that a config names for the certificate of a server.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

use reunion_model::plugin::{ErrorClass, PluginError};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// More than the authorities of the whole world take.
const PEM_BYTES_MAX: u64 = 4 << 20;

/// Certificates of authorities, all of which can be used.
#[derive(Debug)]
pub struct Authority {
    /// As they stand in the file.
    pub pem: Vec<u8>,
    /// To check certificates against.
    pub roots: RootCertStore,
}

impl Authority {
    /// Reads a PEM file, which `key` of the config names.
    ///
    /// # Errors
    /// Invalid config, where it cannot be read or holds something else.
    pub fn read(path: &Path, key: &str) -> Result<Self, PluginError> {
        let unusable = |why: &str| {
            let message = format!("the authority's certificate {} cannot be used: {why}", path.display());
            PluginError::new(ErrorClass::InvalidConfig, message).key(key).hint("a PEM file begins with -----BEGIN CERTIFICATE-----")
        };
        let pem = read(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => unusable("there is no such file"),
            kind => unusable(&kind.to_string()),
        })?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().unwrap_or_default();
        if certificates.is_empty() {
            return Err(unusable("it holds no certificate in PEM form"));
        }
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate).map_err(|error| unusable(&error.to_string()))?;
        }
        Ok(Self { pem, roots })
    }
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut pem = Vec::new();
    File::open(path)?.take(PEM_BYTES_MAX + 1).read_to_end(&mut pem)?;
    if pem.len() as u64 > PEM_BYTES_MAX { Err(ErrorKind::FileTooLarge.into()) } else { Ok(pem) }
}
