//! Entry points of the fuzz targets and the allocation tests: arbitrary bytes go in, a broken promise panics.

use bytes::Bytes;

use crate::api::{ApiKey, Request};
use crate::decoder::Decoder;
use crate::frame;
use crate::header::RequestHeader;
use crate::message::Message;
use crate::messages::{admin, fetch, group_offsets, groups, metadata, offsets, produce, producer, sasl};
use crate::versions::Versions;

/// Decodes a request frame without prefix, as a broker does. Returns whether it is a message.
pub fn request_frame(frame: Bytes) -> bool {
    let mut decoder = Decoder::new(frame);
    let Ok(header) = RequestHeader::decode(&mut decoder) else { return false };
    let Some(api) = header.api() else { return false };
    request(api, header.api_version, decoder.rest(), Check::Survives)
}

/// What is checked of a decoded message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Nothing.
    Decodes,
    /// It stays the same when it is encoded and decoded again.
    Survives,
}

/// Decodes a request or a response; the first two bytes choose API and version. Returns whether it is a message.
pub fn any_message(input: &[u8]) -> bool {
    let [choice, version, body @ ..] = input else { return false };
    let api = ApiKey::ALL[usize::from(choice & 0x7f) % ApiKey::ALL.len()];
    let Some(versions) = api.versions() else { return false };
    let version = versions.min + i16::from(*version) % (versions.max - versions.min + 1);
    let body = Bytes::copy_from_slice(body);
    if choice & 0x80 == 0 {
        request(api, version, body, Check::Survives)
    } else {
        response(api, version, body, Check::Survives)
    }
}

macro_rules! dispatch {
    ($($api:ident: $module:ident::$request:ident -> $response:ident;)*) => {
        /// Decodes the body of a request. Returns whether it is a message.
        pub fn request(api: ApiKey, version: i16, body: Bytes, check: Check) -> bool {
            match api {
                $(ApiKey::$api => decodes::<$module::$request>(version, body, check),)*
                _ => false,
            }
        }

        /// Decodes the body of a response. Returns whether it is a message.
        pub fn response(api: ApiKey, version: i16, body: Bytes, check: Check) -> bool {
            match api {
                $(ApiKey::$api => decodes::<<$module::$request as Request>::Response>(version, body, check),)*
                _ => false,
            }
        }

        /// The APIs that have messages, with their versions.
        pub const APIS: &[(ApiKey, Versions)] = &[$((ApiKey::$api, <$module::$request as Message>::VERSIONS)),*];
    };
}
crate::api::each_api!(dispatch);

fn decodes<M: Message + PartialEq + std::fmt::Debug>(version: i16, body: Bytes, check: Check) -> bool {
    let mut decoder = Decoder::new(body);
    let Ok(message) = M::decode(&mut decoder, version) else { return false };
    if check == Check::Decodes {
        return true;
    }
    let encoded = frame::encode_body(&message, version).expect("what was decoded can be encoded");
    let again = frame::decode_body::<M>(encoded, version).expect("what was encoded can be decoded");
    assert_eq!(message, again);
    true
}
