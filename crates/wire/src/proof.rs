//! The proof of the codec: generated values of every message in every version are compared with an independent
//! implementation, and hostile bytes are decoded.

use bytes::Bytes;
use proptest::prelude::*;

use crate::api::{ApiKey, Request};
use crate::frame::{decode_body, encode_body};
use crate::message::Message;
use crate::sample::{Entropy, Sample};
use crate::{fuzz, table};

fn sample<M: Message + Sample>(entropy: &[u8], version: i16) -> M {
    let form = table::form(version, M::VERSIONS, M::FLEXIBLE).unwrap();
    M::sample(&mut Entropy(entropy), form)
}

/// Ours to theirs and back: bytes and value stay the same in every version.
fn agrees<M, T>(entropy: &[u8])
where
    M: Message + Sample + PartialEq + std::fmt::Debug,
    T: kafka_protocol::protocol::Message
        + kafka_protocol::protocol::Encodable
        + kafka_protocol::protocol::Decodable
        + std::fmt::Debug,
{
    assert_eq!(M::VERSIONS.min, T::VERSIONS.min);
    assert!(M::VERSIONS.max <= T::VERSIONS.max, "a version that nothing proves");
    for version in M::VERSIONS.min..=M::VERSIONS.max {
        let value: M = sample(entropy, version);
        let ours = encode_body(&value, version).unwrap();
        let mut rest = ours.clone();
        let theirs =
            T::decode(&mut rest, version).unwrap_or_else(|e| panic!("version {version}: {e}: {value:?}"));
        assert!(rest.is_empty(), "version {version}: {} bytes left over: {value:?}", rest.len());
        let mut encoded = bytes::BytesMut::new();
        theirs.encode(&mut encoded, version).unwrap_or_else(|e| panic!("version {version}: {e}: {theirs:?}"));
        assert_eq!(encoded.freeze(), ours, "version {version}: {value:?} against {theirs:?}");
        assert_eq!(decode_body::<M>(ours, version).unwrap(), value, "version {version}");
    }
}

/// Their defaults are our defaults in every version, except that our nullable fields are null by default.
fn defaults_agree<M, T>()
where
    M: Message + std::fmt::Debug,
    T: kafka_protocol::protocol::Message + kafka_protocol::protocol::Encodable + Default,
{
    for version in M::VERSIONS.min..=M::VERSIONS.max {
        let mut theirs = bytes::BytesMut::new();
        T::default().encode(&mut theirs, version).unwrap();
        let theirs: M = decode_body(theirs.freeze(), version).unwrap();
        let nulls = |value: &M| {
            ["Some(\"\")", "Some([])", "Some(b\"\")", "Some(Rope([]))"]
                .iter()
                .fold(format!("{value:?}"), |text, empty| text.replace(empty, "None"))
        };
        assert_eq!(nulls(&theirs), nulls(&M::default()), "version {version}");
    }
}

/// Every prefix of a message is refused, and so is the message with one more byte.
fn ends_are_checked<M: Message + Sample>(entropy: &[u8]) {
    for version in M::VERSIONS.min..=M::VERSIONS.max {
        let bytes = encode_body(&sample::<M>(entropy, version), version).unwrap();
        for end in 0..bytes.len().min(300) {
            assert!(
                decode_body::<M>(bytes.slice(..end), version).is_err(),
                "version {version}, cut at {end}"
            );
        }
        let more = [&bytes[..], &[0]].concat();
        assert!(decode_body::<M>(more.into(), version).is_err(), "version {version}, one byte more");
    }
}

/// A failure prints its smallest entropy and leaves no file behind.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

macro_rules! prove {
    ($($api:ident: $module:ident::$request:ident -> $response:ident;)*) => {$(
        #[allow(non_snake_case, reason = "named by the API")]
        mod $api {
            use super::*;
            use crate::messages::$module::{$request, $response};

            proptest! {
                #![proptest_config(cases(64))]

                #[test]
                fn agrees_with_another_implementation(entropy in prop::collection::vec(any::<u8>(), 0..2_000)) {
                    agrees::<$request, kafka_protocol::messages::$request>(&entropy);
                    agrees::<$response, kafka_protocol::messages::$response>(&entropy);
                }
            }

            #[test]
            fn defaults_and_ends() {
                defaults_agree::<$request, kafka_protocol::messages::$request>();
                defaults_agree::<$response, kafka_protocol::messages::$response>();
                let entropy: Vec<u8> = (0..600u32).map(|i| (i * 37 % 251) as u8).collect();
                ends_are_checked::<$request>(&entropy);
                ends_are_checked::<$response>(&entropy);
                assert_eq!(<$request as Request>::API, ApiKey::$api);
                let theirs = kafka_protocol::messages::ApiKey::try_from(ApiKey::$api.number()).unwrap();
                for version in $request::VERSIONS.min..=$request::VERSIONS.max {
                    let flexible = ApiKey::$api.request_header_flexible(version);
                    assert_eq!(theirs.request_header_version(version), if flexible { 2 } else { 1 });
                    let flexible = ApiKey::$api.response_header_flexible(version);
                    assert_eq!(theirs.response_header_version(version), i16::from(flexible));
                }
            }
        }
    )*};
}
crate::api::each_api!(prove);

proptest! {
    #![proptest_config(cases(20_000))]

    #[test]
    fn arbitrary_bytes_never_panic(input in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz::any_message(&input);
        fuzz::request_frame(input.into());
    }
}

/// Tables with one wrong word each. The proof must find it.
#[allow(unreachable_pub, reason = "tables make public structures")]
mod planted {
    use super::*;
    use crate::table::messages;

    macro_rules! wrong {
        ($($name:ident ($says:literal): $flexible:literal, $group_id:ty, $instance:literal;)*) => {$(
            mod $name {
                use super::*;

                messages! {
                    /// A HeartbeatRequest with one wrong word.
                    struct Wrong, versions "0-4", flexible $flexible {
                        group_id: $group_id, "0+";
                        generation_id: i32, "0+";
                        member_id: String, "0+";
                        group_instance_id: Option<String>, $instance;
                    }
                }

                #[test]
                #[should_panic = $says]
                fn is_seen() {
                    agrees::<Wrong, kafka_protocol::messages::HeartbeatRequest>(&[7; 100]);
                }
            }
        )*};
    }

    wrong! {
        versions("version 2"): "4+", String, "2+";
        flexible("version 3"): "3+", String, "3+";
        types("version 0"): "4+", Bytes, "3+";
    }
}
