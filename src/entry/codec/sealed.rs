//! The encrypted form of an entry, for responses that are limited to some clients.
//!
//! ```text
//! "LRDS"  version u8  checksum u64 of all that follows  kind u8
//! order u64 × 3 (response) or × 1 (index)  key id u32  nonce [u8; 12]
//! ciphertext of the plain head  tag [u8; 16]
//! ```
//!
//! Kind and order are at the same offsets as in the plain form, for the scripts that compare
//! entries ([`ORDER_OFFSET`]). A chunk is a key ID, a nonce, ciphertext and a tag.
//!
//! The cipher is AES-256-GCM (NIST SP 800-38D) with random nonces. Each place in Redis has its own
//! key, derived from the operator's secret by HMAC-SHA-256 (RFC 2104). So no key gets near the 2^32
//! messages after which random nonces may repeat. The place is authenticated too: a value that is
//! moved to another key, or to another position among the chunks, cannot be decrypted there.

use std::fmt;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac::{self, HMAC_SHA256},
    rand,
};
use bytes::Bytes;

use super::{
    EncodedEntry, MAGIC, ORDER_OFFSET, PREFIX_LENGTH, RESPONSE, VARIANTS, VERSION, is_intact,
    reader::ByteReader, with_checksum,
};
use crate::key::digest::MIN_DIGEST_KEY_LENGTH;

const SEALED_MAGIC: [u8; 4] = *b"LRDS";

/// The length of a response's order in bytes, see [`ORDER_OFFSET`].
const RESPONSE_ORDER: usize = 24;
const VARIANTS_ORDER: usize = 8;

const ID: usize = size_of::<u32>();
const TAG: usize = 16;

/// A place in Redis that holds encrypted data.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SealedPart {
    /// The value at the entry's key.
    Head,
    /// A chunk of the entry's content: the body ID, and the chunk's number.
    Chunk(u64, u32),
}

/// Secrets that encrypt entries. The first secret encrypts; all secrets decrypt.
#[derive(Clone)]
pub(crate) struct SealingKeys(Box<[SealingKey]>);

#[derive(Clone)]
struct SealingKey {
    id: [u8; ID],
    secret: hmac::Key,
}

/// The result of decrypting a head or a chunk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum UnsealOutcome {
    Plain(Vec<u8>),
    /// The data is damaged, or not an encrypted entry.
    Damaged,
    /// The data was encrypted with an unknown secret, or for another place in Redis.
    Locked,
}

impl fmt::Debug for SealingKeys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

impl SealingKeys {
    /// Builds keys from secrets of at least [`MIN_DIGEST_KEY_LENGTH`] bytes each.
    ///
    /// Returns `None` if a secret is shorter, or if there are no secrets.
    pub(crate) fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let secrets: Option<Box<[SealingKey]>> = secrets.into_iter().map(SealingKey::new).collect();
        secrets.filter(|secrets| !secrets.is_empty()).map(Self)
    }

    /// Encrypts an encoded entry, given the digest of its key.
    ///
    /// Returns `None` if the system provides no random numbers. Takes 1 µs plus 0.5 ns per byte;
    /// copies the chunks.
    pub(crate) fn seal(
        &self,
        digest: u128,
        body_id: u64,
        written: &EncodedEntry,
    ) -> Option<EncodedEntry> {
        let cipher = Cipher::new(self.0.first()?, digest)?;
        let head = sealed_head(&cipher, &written.head)?;
        let chunks = written.chunks.iter().zip(0..).map(|(chunk, number)| {
            let mut out = Vec::with_capacity(ID + NONCE_LEN + chunk.len() + TAG);
            cipher.seal(SealedPart::Chunk(body_id, number), &[], chunk, &mut out)?;
            Some(Bytes::from(out))
        });
        Some(EncodedEntry { head, chunks: chunks.collect::<Option<_>>()? })
    }

    /// Decrypts the head of the entry with this key digest.
    pub(crate) fn open_head(&self, digest: u128, head: &[u8]) -> UnsealOutcome {
        let Some((shown, sealed)) = split(head) else { return UnsealOutcome::Damaged };
        match self.open(digest, (SealedPart::Head, shown), sealed) {
            Some(plain) => UnsealOutcome::Plain(plain),
            None => UnsealOutcome::Locked,
        }
    }

    pub(crate) fn open_chunk(
        &self,
        digest: u128,
        part: SealedPart,
        sealed: &[u8],
    ) -> Option<Bytes> {
        self.open(digest, (part, &[]), sealed).map(Bytes::from)
    }

    fn open(
        &self,
        digest: u128,
        (part, shown): (SealedPart, &[u8]),
        sealed: &[u8],
    ) -> Option<Vec<u8>> {
        let (id, sealed) = sealed.split_first_chunk::<ID>()?;
        let mut fitting = self.0.iter().filter(|secret| secret.id == *id);
        fitting.find_map(|secret| Cipher::new(secret, digest)?.open(part, shown, sealed))
    }
}

pub(crate) fn is_sealed(head: &[u8]) -> bool {
    head.starts_with(&SEALED_MAGIC)
}

impl SealingKey {
    fn new(secret: &[u8]) -> Option<Self> {
        if secret.len() < MIN_DIGEST_KEY_LENGTH {
            return None;
        }
        let secret = hmac::Key::new(HMAC_SHA256, secret);
        let id = *hmac::sign(&secret, b"larder: id").as_ref().first_chunk()?;
        Some(Self { id, secret })
    }
}

/// The cipher of one place in Redis.
struct Cipher {
    id: [u8; ID],
    digest: u128,
    key: LessSafeKey,
}

impl Cipher {
    fn new(secret: &SealingKey, digest: u128) -> Option<Self> {
        let mut context = hmac::Context::with_key(&secret.secret);
        context.update(b"larder: entry");
        context.update(&digest.to_le_bytes());
        let key = UnboundKey::new(&AES_256_GCM, context.sign().as_ref()).ok()?;
        Some(Self { id: secret.id, digest, key: LessSafeKey::new(key) })
    }

    fn seal(&self, part: SealedPart, shown: &[u8], plain: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        out.extend_from_slice(&self.id);
        out.extend_from_slice(&nonce);
        let begin = out.len();
        out.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let aad = Aad::from(self.authenticated(part, shown));
        let tag = self.key.seal_in_place_separate_tag(nonce, aad, out.get_mut(begin..)?).ok()?;
        out.extend_from_slice(tag.as_ref());
        Some(())
    }

    fn open(&self, part: SealedPart, shown: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE_LEN>()?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let aad = Aad::from(self.authenticated(part, shown));
        let mut plain = sealed.to_vec();
        let length = self.key.open_in_place(nonce, aad, &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }

    /// Returns the additional authenticated data: version, place in Redis, and unencrypted part.
    fn authenticated(&self, part: SealedPart, shown: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.digest.to_le_bytes());
        match part {
            SealedPart::Head => bytes.push(b'h'),
            SealedPart::Chunk(body_id, number) => {
                bytes.push(b'c');
                bytes.extend_from_slice(&body_id.to_le_bytes());
                bytes.extend_from_slice(&number.to_le_bytes());
            }
        }
        bytes.extend_from_slice(shown);
        bytes
    }
}

/// Encrypts a plain head, with its kind and order unencrypted in front.
fn sealed_head(cipher: &Cipher, plain: &[u8]) -> Option<Vec<u8>> {
    let shown = plain.get(ORDER_OFFSET..ORDER_OFFSET + shown_length(*plain.get(ORDER_OFFSET)?)?)?;
    let mut out =
        Vec::with_capacity(PREFIX_LENGTH + shown.len() + ID + NONCE_LEN + plain.len() + TAG);
    out.extend_from_slice(&SEALED_MAGIC);
    out.extend_from_slice(plain.get(MAGIC.len()..PREFIX_LENGTH)?);
    out.extend_from_slice(shown);
    cipher.seal(SealedPart::Head, shown, plain, &mut out)?;
    Some(with_checksum(out))
}

/// Splits an encrypted head into its unencrypted and its encrypted part.
///
/// Returns `None` if the head is damaged or not encrypted.
fn split(head: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut reader = ByteReader::new(head);
    if reader.array()? != SEALED_MAGIC || reader.u8()? != VERSION {
        return None;
    }
    let expected = reader.u64()?;
    let rest = reader.rest();
    if !is_intact(expected, rest) {
        return None;
    }
    rest.split_at_checked(shown_length(*rest.first()?)?)
}

fn shown_length(kind: u8) -> Option<usize> {
    match kind {
        VARIANTS => Some(1 + VARIANTS_ORDER),
        RESPONSE => Some(1 + RESPONSE_ORDER),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use proptest::prelude::*;

    use super::*;
    use crate::entry::codec::{EncodeOptions, begin_entry, encode, tests::entries};

    const LARGE: [u8; 32] = [7; 32];

    fn sealing_keys(secrets: &[&[u8]]) -> SealingKeys {
        SealingKeys::new(secrets.iter().copied()).unwrap()
    }

    fn written(entry: &crate::entry::Entry) -> EncodedEntry {
        let chunk = NonZeroU32::new(100).unwrap();
        encode(
            entry,
            EncodeOptions { compress_above: usize::MAX, chunk, body_id: 7, clock_offset: 0 },
        )
    }

    #[test]
    fn a_secret_is_long_enough_and_never_shown() {
        assert!(SealingKeys::new([&LARGE[..31]]).is_none() && SealingKeys::new([]).is_none());
        assert!(SealingKeys::new([&LARGE[..], &LARGE[..3]]).is_none());
        assert_eq!(format!("{:?}", sealing_keys(&[&LARGE])), "[redacted]");
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_opened_in_its_place_only(entry in entries(), digest in any::<u128>()) {
            let (plain, sealing_keys) = (written(&entry), sealing_keys(&[&LARGE]));
            let sealed = sealing_keys.seal(digest, 7, &plain).unwrap();
            prop_assert!(is_sealed(&sealed.head) && !is_sealed(&plain.head));
            prop_assert_eq!(sealing_keys.open_head(digest, &sealed.head), UnsealOutcome::Plain(plain.head.clone()));
            prop_assert_eq!(sealing_keys.open_head(digest ^ 1, &sealed.head), UnsealOutcome::Locked);
            for (number, (sealed, plain)) in (0..).zip(sealed.chunks.iter().zip(&plain.chunks)) {
                let open = |digest, body_id, number| {
                    sealing_keys.open_chunk(digest, SealedPart::Chunk(body_id, number), sealed)
                };
                prop_assert_eq!(open(digest, 7, number), Some(plain.clone()));
                prop_assert_eq!(open(digest ^ 1, 7, number), None);
                prop_assert_eq!(open(digest, 8, number), None);
                prop_assert_eq!(open(digest, 7, number + 1), None);
            }
        }

        #[test]
        fn nothing_that_was_changed_is_opened(
            entry in entries(),
            place: prop::sample::Index,
            change in 1_u8..,
        ) {
            let sealing_keys = sealing_keys(&[&LARGE]);
            let sealed = sealing_keys.seal(1, 7, &written(&entry)).unwrap();
            let mut damaged = sealed.head.clone();
            damaged[place.index(sealed.head.len())] ^= change;
            prop_assert_eq!(sealing_keys.open_head(1, &damaged), UnsealOutcome::Damaged);
            // An attacker who can write to Redis can also correct the checksum.
            let forged = super::with_checksum(damaged);
            prop_assert!(!matches!(sealing_keys.open_head(1, &forged), UnsealOutcome::Plain(_)) || forged == sealed.head);
            let mut cut = sealed.head.clone();
            cut.truncate(place.index(sealed.head.len()));
            prop_assert_eq!(sealing_keys.open_head(1, &cut), UnsealOutcome::Damaged);
        }

        #[test]
        fn what_stands_in_redis_holds_nothing_readable(entry in entries()) {
            let plain = written(&entry);
            let sealed = sealing_keys(&[&LARGE]).seal(1, 7, &plain).unwrap();
            let key = entry.key_text();
            let holds = |bytes: &[u8]| key.len() > 4 && bytes.windows(key.len()).any(|it| it == key);
            prop_assert!(!holds(&sealed.head) && !sealed.chunks.iter().any(|chunk| holds(chunk)));
        }

        #[test]
        fn what_scripts_compare_stands_where_the_plain_form_has_it(entry in entries()) {
            let plain = written(&entry);
            let sealed = sealing_keys(&[&LARGE]).seal(1, 7, &plain).unwrap();
            let length = shown_length(plain.head[ORDER_OFFSET]).unwrap();
            prop_assert_eq!(&sealed.head[ORDER_OFFSET..ORDER_OFFSET + length], &plain.head[ORDER_OFFSET..ORDER_OFFSET + length]);
            prop_assert_eq!(sealed.head[4], plain.head[4]);
            let again = sealing_keys(&[&LARGE]).seal(1, 7, &plain).unwrap();
            prop_assert_ne!(&again.head[..PREFIX_LENGTH], &sealed.head[..PREFIX_LENGTH]);
        }
    }

    #[test]
    fn the_first_secret_seals_and_all_of_them_open() {
        let plain = EncodedEntry {
            head: super::with_checksum(begin_entry(RESPONSE, 0)),
            chunks: Vec::new(),
        };
        let plain = EncodedEntry { head: [&plain.head[..], &[0; 24]].concat(), ..plain };
        let (old, new) = ([1; 32], [2; 32]);
        let by_old = sealing_keys(&[&old]).seal(1, 7, &plain).unwrap();
        let by_new = sealing_keys(&[&new, &old]).seal(1, 7, &plain).unwrap();
        for sealed in [&by_old, &by_new] {
            let opened = sealing_keys(&[&new, &old]).open_head(1, &sealed.head);
            assert_eq!(opened, UnsealOutcome::Plain(plain.head.clone()));
        }
        assert_eq!(sealing_keys(&[&old]).open_head(1, &by_new.head), UnsealOutcome::Locked);
        assert_eq!(sealing_keys(&[&new]).open_head(1, &by_old.head), UnsealOutcome::Locked);
        assert_eq!(
            sealing_keys(&[&old]).open_head(1, &plain.head),
            UnsealOutcome::Damaged,
            "not sealed"
        );
    }
}
