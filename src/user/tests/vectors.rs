//! Tests of signatures: examples from the RFCs, and tokens signed with generated keys.

use aws_lc_rs::{
    encoding::AsDer as _,
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair,
        Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
        RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512, RsaKeyPair,
    },
};
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::user::{
    jwks,
    jwt::{Jwt, algorithm::JwsAlgorithm, key::PemError},
};

/// The payload of RFC 7515 §A.1 to §A.3.
const PAYLOAD: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";

fn only_key(jwk: &str) -> VerificationKey {
    let keys = jwks::parse(format!(r#"{{"keys":[{jwk}]}}"#).as_bytes()).unwrap();
    let [key] = keys.try_into().unwrap();
    key
}

fn verifies(key: &VerificationKey, token: &str) -> bool {
    let token = Jwt::parse(token.as_bytes()).unwrap();
    key.verifies(token.algorithm, token.signed, &token.signature)
}

#[test]
fn the_examples_of_the_rfcs_are_verified() {
    let secret = URL_SAFE_NO_PAD
        .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
        .unwrap();
    let hs256 = format!(
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{PAYLOAD}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    );
    assert!(verifies(&VerificationKey::secret(&secret), &hs256));
    let rsa = only_key(
        r#"{"kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}"#,
    );
    let rs256 = format!(
        "eyJhbGciOiJSUzI1NiJ9.{PAYLOAD}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
    );
    assert!(verifies(&rsa, &rs256));
    let ec = only_key(
        r#"{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#,
    );
    let es256 = format!(
        "eyJhbGciOiJFUzI1NiJ9.{PAYLOAD}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
    );
    assert!(verifies(&ec, &es256));
    let ed = only_key(
        r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
    );
    // RFC 8037 §A.4.
    let eddsa = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    assert!(verifies(&ed, eddsa));
    for key in [&rsa, &ec, &ed] {
        for token in [&*hs256, &rs256, &es256, eddsa] {
            let is_own = verifies(key, token);
            let others = [&rsa, &ec, &ed].into_iter().filter(|other| verifies(other, token));
            assert!(others.count() <= 1 && (!is_own || token != hs256));
        }
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

fn signed_by(algorithm: JwsAlgorithm, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let header = format!(r#"{{"alg":"{}"}}"#, algorithm.as_str());
    let message = format!("{}.{}", encoded(header), encoded(r#"{"sub":"u1"}"#));
    let signature = sign(message.as_bytes());
    format!("{message}.{}", encoded(signature))
}

fn identifies(pem: &str, token: &str) -> Result<(), IdentityError> {
    let users = users(rules(VerificationKey::from_pem(pem).unwrap()));
    user_of(&users, &bearing(token)).map(|_| ())
}

#[test]
fn rsa_signs_in_six_ways() {
    let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let spki = pem("PUBLIC KEY", pair.public_key().as_der().unwrap().as_ref());
    let pkcs1 = pem("RSA PUBLIC KEY", pair.public_key().as_ref());
    let sign = |algorithm| {
        signed_by(algorithm, |message| {
            let padding: &dyn aws_lc_rs::signature::RsaEncoding = match algorithm {
                JwsAlgorithm::Rs256 => &RSA_PKCS1_SHA256,
                JwsAlgorithm::Rs384 => &RSA_PKCS1_SHA384,
                JwsAlgorithm::Rs512 => &RSA_PKCS1_SHA512,
                JwsAlgorithm::Ps256 => &RSA_PSS_SHA256,
                JwsAlgorithm::Ps384 => &RSA_PSS_SHA384,
                _ => &RSA_PSS_SHA512,
            };
            let mut signature = vec![0; pair.public_modulus_len()];
            pair.sign(padding, &SystemRandom::new(), message, &mut signature).unwrap();
            signature
        })
    };
    let rsa = JwsAlgorithm::ALL
        .into_iter()
        .filter(|algorithm| VerificationKey::from_pem(&spki).unwrap()[0].is_for(*algorithm));
    assert_eq!(rsa.clone().count(), 6);
    for algorithm in rsa {
        assert_eq!(identifies(&spki, &sign(algorithm)), Ok(()), "{algorithm:?}");
        assert_eq!(identifies(&pkcs1, &sign(algorithm)), Ok(()), "{algorithm:?}");
    }
    assert_eq!(VerificationKey::from_pem(&spki), VerificationKey::from_pem(&pkcs1));
    // A public key is not a secret, whatever a token claims.
    for bytes in [spki.as_bytes(), pair.public_key().as_ref()] {
        let forged = signed_with(bytes, r#"{"alg":"HS256"}"#, r#"{"sub":"u1"}"#);
        assert_eq!(identifies(&spki, &forged), Err(IdentityError::Algorithm));
    }
}

#[test]
fn curves_sign_in_their_own_way() {
    let random = SystemRandom::new();
    let curves = [
        (&ECDSA_P256_SHA256_FIXED_SIGNING, JwsAlgorithm::Es256),
        (&ECDSA_P384_SHA384_FIXED_SIGNING, JwsAlgorithm::Es384),
    ];
    for (curve, algorithm) in curves {
        let pair = EcdsaKeyPair::generate(curve).unwrap();
        let pem = pem("PUBLIC KEY", pair.public_key().as_der().unwrap().as_ref());
        let sign = |message: &[u8]| pair.sign(&random, message).unwrap().as_ref().to_vec();
        assert_eq!(identifies(&pem, &signed_by(algorithm, sign)), Ok(()), "{algorithm:?}");
        assert_eq!(
            identifies(&pem, &signed_by(JwsAlgorithm::Rs256, sign)),
            Err(IdentityError::Algorithm)
        );
        // All zeros is not a signature (CVE-2022-21449).
        let zeros = signed_by(algorithm, |message| vec![0; sign(message).len()]);
        assert_eq!(identifies(&pem, &zeros), Err(IdentityError::Signature));
    }
    let pair = Ed25519KeyPair::generate().unwrap();
    let pem = pem("PUBLIC KEY", pair.public_key().as_der().unwrap().as_ref());
    let sign = |message: &[u8]| pair.sign(message).as_ref().to_vec();
    assert_eq!(identifies(&pem, &signed_by(JwsAlgorithm::EdDsa, sign)), Ok(()));
}

#[test]
fn a_secret_signs_in_three_ways_and_may_be_exchanged() {
    let users = users(rules([
        VerificationKey::secret(b"the new secret of this issuer"),
        VerificationKey::secret(SECRET),
    ]));
    for (algorithm, hmac) in [
        (JwsAlgorithm::Hs256, hmac::HMAC_SHA256),
        (JwsAlgorithm::Hs384, hmac::HMAC_SHA384),
        (JwsAlgorithm::Hs512, hmac::HMAC_SHA512),
    ] {
        let sign =
            |message: &[u8]| hmac::sign(&hmac::Key::new(hmac, SECRET), message).as_ref().to_vec();
        let token = signed_by(algorithm, sign);
        assert!(user_of(&users, &bearing(&token)).is_ok(), "{algorithm:?}");
    }
}

#[test]
fn only_the_algorithms_that_are_set_count() {
    let mut rules = rules([VerificationKey::secret(SECRET)]);
    rules.algorithms = Some([JwsAlgorithm::Hs512].into());
    let found = user_of(&users(rules), &bearing(&token(r#"{"sub":"u1"}"#)));
    assert_eq!(found.map(|_| ()), Err(IdentityError::Algorithm));
}

#[test]
fn what_is_no_public_key_is_refused() {
    let small = small_rsa();
    for (text, expected) in [
        (String::new(), PemError::NoPem),
        ("secret".to_owned(), PemError::NoPem),
        ("-----BEGIN PUBLIC KEY-----\nAAAA".to_owned(), PemError::NoPem),
        (pem("PRIVATE KEY", b"x"), PemError::Private),
        (pem("RSA PRIVATE KEY", b"x"), PemError::Private),
        (pem("CERTIFICATE", b"x"), PemError::Certificate),
        (pem("PUBLIC KEY", b"x"), PemError::Unsupported),
        (small, PemError::Unsupported),
    ] {
        assert_eq!(VerificationKey::from_pem(&text), Err(expected), "{text}");
    }
}

/// Returns an RSA public key of 1,024 bits; a modulus is enough for the parser.
fn small_rsa() -> String {
    let mut modulus = vec![0x02, 0x81, 0x81, 0x00];
    modulus.extend([0xc1; 128]);
    let exponent = [0x02, 0x03, 0x01, 0x00, 0x01];
    let length = modulus.len() + exponent.len();
    let der = [&[0x30, 0x81, u8::try_from(length).unwrap()], &*modulus, &exponent].concat();
    pem("RSA PUBLIC KEY", &der)
}

#[test]
fn keys_that_are_not_for_signatures_are_left_out_of_a_set() {
    let ed = r#""kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo""#;
    let count = |members: &str| {
        jwks::parse(format!(r#"{{"keys":[{{{ed}{members}}}]}}"#).as_bytes()).unwrap().len()
    };
    for members in [
        "",
        r#","use":"sig""#,
        r#","key_ops":["verify"]"#,
        r#","alg":"EdDSA","kid":"a""#,
        r#","x5c":["…"],"other":1"#,
    ] {
        assert_eq!(count(members), 1, "{members}");
    }
    for members in [
        r#","use":"enc""#,
        r#","key_ops":["sign"]"#,
        r#","alg":"RS256""#,
        r#","alg":"ECDH-ES""#,
        r#","kid":1"#,
        r#","kty":"EC""#,
    ] {
        assert_eq!(count(members), 0, "{members}");
    }
    let others = r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"},{"kty":"RSA","n":"AQAB","e":"AQAB"},
        {"kty":"EC","crv":"P-256","x":"AA","y":"AA"},{"kty":"EC","crv":"secp256k1"},{},1,"a"]}"#;
    assert_eq!(jwks::parse(others.as_bytes()), Some(Vec::new()));
    for text in ["", "[]", "{}", r#"{"keys":{}}"#, r#"{"keys":[]"#, r#"{"keys":[],"keys":[]}"#] {
        assert_eq!(jwks::parse(text.as_bytes()), None, "{text}");
    }
}
