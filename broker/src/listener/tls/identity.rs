//! Whom a client certificate names.

use rustls::pki_types::CertificateDer;
use tracing::debug;
use x509_cert::Certificate;
use x509_cert::certificate::TbsCertificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{self, Decode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::{DirectoryString, GeneralName};

use crate::config::CertificateUser;
use crate::hooks::CertificateIdentity;

/// The user in a verified certificate. `None` if there is none, or more than one: then it proves nobody.
pub(super) fn of(
    certificate: &CertificateDer<'_>,
    user: CertificateUser,
) -> Option<CertificateIdentity> {
    match names(certificate, user) {
        Ok(mut names) if names.len() == 1 => names
            .pop()
            .map(|name| CertificateIdentity { user: name.into() }),
        Ok(names) => {
            debug!(
                count = names.len(),
                "client certificate names no user, or several"
            );
            None
        }
        Err(error) => {
            debug!(%error, "client certificate cannot be read");
            None
        }
    }
}

fn names(certificate: &CertificateDer<'_>, user: CertificateUser) -> der::Result<Vec<String>> {
    let certificate = Certificate::from_der(certificate)?;
    let certificate = certificate.tbs_certificate();
    if user == CertificateUser::CommonName {
        return common_names(certificate);
    }
    let Some((_, SubjectAltName(names))) = certificate.get_extension::<SubjectAltName>()? else {
        return Ok(Vec::new());
    };
    let wanted = names.iter().filter_map(|name| match (user, name) {
        (CertificateUser::Dns, GeneralName::DnsName(name))
        | (CertificateUser::Email, GeneralName::Rfc822Name(name))
        | (CertificateUser::Uri, GeneralName::UniformResourceIdentifier(name)) => {
            Some(name.as_str().to_owned())
        }
        _ => None,
    });
    Ok(wanted.collect())
}

fn common_names(certificate: &TbsCertificate) -> der::Result<Vec<String>> {
    certificate
        .subject()
        .iter()
        .filter(|attribute| attribute.oid == COMMON_NAME)
        .map(|attribute| {
            let name: DirectoryString = attribute.value.decode_as()?;
            Ok(name.value().into_owned())
        })
        .collect()
}

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().into()
    }

    fn user(certificate: &CertificateDer<'_>, from: CertificateUser) -> Option<String> {
        of(certificate, from).map(|identity| identity.user.to_string())
    }

    #[test]
    fn each_part_names_its_user() {
        let certificate = certificate(|params| {
            params.distinguished_name.push(DnType::CommonName, "alice");
            params.subject_alt_names = vec![
                SanType::DnsName("phone.example".try_into().unwrap()),
                SanType::Rfc822Name("alice@example.org".try_into().unwrap()),
                SanType::URI("urn:user:alice".try_into().unwrap()),
            ];
        });
        for (from, expected) in [
            (CertificateUser::CommonName, "alice"),
            (CertificateUser::Dns, "phone.example"),
            (CertificateUser::Email, "alice@example.org"),
            (CertificateUser::Uri, "urn:user:alice"),
        ] {
            assert_eq!(user(&certificate, from).as_deref(), Some(expected));
        }
    }

    #[test]
    fn no_name_and_two_names_prove_nobody() {
        let nobody = certificate(|_| {});
        for from in [CertificateUser::CommonName, CertificateUser::Dns] {
            assert_eq!(user(&nobody, from), None);
        }
        let two = certificate(|params| {
            params.subject_alt_names = ["a.example", "b.example"]
                .map(|name| SanType::DnsName(name.try_into().unwrap()))
                .into();
        });
        assert_eq!(user(&two, CertificateUser::Dns), None);
        assert_eq!(
            user(&CertificateDer::from(vec![1, 2, 3]), CertificateUser::Dns),
            None
        );
    }
}
