//! The headers of requests and responses.

use crate::api::ApiKey;
use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::fault::WireError;

/// The header of a request: version 1, or 2 if the request is flexible.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestHeader {
    /// The number of the API; see [`ApiKey::from_number`].
    pub api_key: i16,
    /// The version of the body, and of the response.
    pub api_version: i16,
    /// The response repeats it, so that the client finds its request.
    pub correlation_id: i32,
    /// The name that the client gave itself.
    pub client_id: Option<String>,
}

impl RequestHeader {
    /// Decodes the header; the decoder is then at the body. For an unknown API or version nothing says whether tagged
    /// fields follow, so the body must not be decoded.
    pub fn decode(decoder: &mut Decoder) -> Result<RequestHeader, WireError> {
        let mut header = RequestHeader {
            api_key: i16::from_be_bytes(decoder.array()?),
            api_version: i16::from_be_bytes(decoder.array()?),
            correlation_id: i32::from_be_bytes(decoder.array()?),
            client_id: None,
        };
        // The client id keeps its 16 bit length even in the flexible header.
        if let Some(length) = decoder.length_short(false).map_err(|error| error.at("client_id"))? {
            header.client_id = Some(decoder.string(length).map_err(|error| error.at("client_id"))?);
        }
        if header.flexible() {
            decoder.tagged(|_, _| Ok(false))?;
        }
        Ok(header)
    }

    /// Encodes the header.
    pub fn encode(&self, encoder: &mut Encoder) -> Result<(), WireError> {
        encoder.put(&self.api_key.to_be_bytes());
        encoder.put(&self.api_version.to_be_bytes());
        encoder.put(&self.correlation_id.to_be_bytes());
        encoder.put_length_short(self.client_id.as_ref().map(String::len), false)?;
        encoder.put(self.client_id.as_deref().unwrap_or_default().as_bytes());
        if self.flexible() {
            encoder.put_uvarint(0);
        }
        Ok(())
    }

    /// The API, if its number is known.
    pub fn api(&self) -> Option<ApiKey> {
        ApiKey::from_number(self.api_key)
    }

    fn flexible(&self) -> bool {
        self.api().is_some_and(|api| api.request_header_flexible(self.api_version))
    }
}

/// The header of a response: version 0, or 1 if the response is flexible (never for ApiVersions).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResponseHeader {
    /// The correlation id of the request.
    pub correlation_id: i32,
}

impl ResponseHeader {
    /// Decodes the header of an answer of this API and version.
    pub fn decode(decoder: &mut Decoder, api: ApiKey, version: i16) -> Result<ResponseHeader, WireError> {
        let correlation_id = i32::from_be_bytes(decoder.array()?);
        if api.response_header_flexible(version) {
            decoder.tagged(|_, _| Ok(false))?;
        }
        Ok(ResponseHeader { correlation_id })
    }

    /// Encodes the header of an answer of this API and version.
    pub fn encode(self, encoder: &mut Encoder, api: ApiKey, version: i16) {
        encoder.put(&self.correlation_id.to_be_bytes());
        if api.response_header_flexible(version) {
            encoder.put_uvarint(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{decode_response, encode_request, encode_response};
    use crate::message::Message;
    use crate::messages::metadata::{ApiVersion, ApiVersionsRequest, ApiVersionsResponse, MetadataRequest};
    use crate::rope::Rope;

    fn check(segments: Vec<bytes::Bytes>, expected: &str) {
        let bytes: String = Rope(segments).to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(bytes, expected.replace(' ', ""));
    }

    /// The bytes of whole frames. They never change.
    #[test]
    fn frames_are_as_the_protocol_says() {
        let request = ApiVersionsRequest {
            client_software_name: "floe".to_owned(),
            client_software_version: "1".to_owned(),
        };
        let frame = encode_request(&request, 3, 7, "me").unwrap();
        check(frame, "00000015 00120003 00000007 00026d65 00 05666c6f65 0231 00");
        let frame = encode_request(&ApiVersionsRequest::default(), 0, 7, "me").unwrap();
        check(frame, "0000000c 00120000 00000007 00026d65");

        let keys = vec![ApiVersion { api_key: 18, min_version: 0, max_version: 4 }];
        let response = ApiVersionsResponse { api_keys: keys, ..Default::default() };
        let frame = encode_response(&response, ApiKey::ApiVersions, 3, 7).unwrap();
        check(frame.clone(), "00000013 00000007 0000 02 0012 0000 0004 00 00000000 00");
        let body = Rope(frame).to_bytes().slice(4..);
        assert_eq!(decode_response::<ApiVersionsRequest>(body, 3).unwrap(), (7, response));
    }

    #[test]
    fn a_request_header_is_read_back_and_its_tags_are_skipped() {
        let header = RequestHeader { api_key: 3, api_version: 12, correlation_id: -5, client_id: None };
        let mut encoder = Encoder::new();
        header.encode(&mut encoder).unwrap();
        let bytes = Rope(encoder.finish().unwrap()).to_bytes();
        let with_tags = [&bytes[..bytes.len() - 1], &[2, 0, 1, 9, 5, 2, 8, 8], &[0xaa]].concat();
        let mut decoder = Decoder::new(with_tags.into());
        assert_eq!(RequestHeader::decode(&mut decoder).unwrap(), header);
        assert_eq!(decoder.rest(), &[0xaa][..]);
        for end in 0..bytes.len() {
            assert!(RequestHeader::decode(&mut Decoder::new(bytes.slice(..end))).is_err());
        }
    }

    #[test]
    fn an_unknown_api_still_has_a_header() {
        let header = RequestHeader { api_key: 999, api_version: 9, correlation_id: 1, client_id: None };
        let mut encoder = Encoder::new();
        header.encode(&mut encoder).unwrap();
        let mut decoder = Decoder::new(Rope(encoder.finish().unwrap()).to_bytes());
        let read = RequestHeader::decode(&mut decoder).unwrap();
        assert_eq!((read.api(), read), (None, header));
    }

    #[test]
    fn a_version_out_of_range_is_refused() {
        let mut encoder = Encoder::new();
        let error = MetadataRequest::default().encode(&mut encoder, 14).unwrap_err();
        assert_eq!(error.to_string(), "version 14 is not supported, only 0-13");
        assert_eq!(MetadataRequest::VERSION_MAX, 13);
        assert_eq!(MetadataRequest::FLEXIBLE_FROM, 9);
        assert!(MetadataRequest::decode(&mut Decoder::new(bytes::Bytes::new()), -1).is_err());
    }
}
