//! The headers of requests and responses.

use crate::api::ApiKey;
use crate::fault::{Fault, WireError};
use crate::reader::Reader;
use crate::writer::Writer;

/// What precedes the body of a request: header version 1, or 2 if the request is flexible.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestHeader {
    /// The number of the API; see [`ApiKey::from_number`].
    pub api_key: i16,
    /// The version of the body, and of the response.
    pub api_version: i16,
    /// What the response repeats, so that the client finds its request.
    pub correlation_id: i32,
    /// The name that the client gave itself.
    pub client_id: Option<String>,
}

impl RequestHeader {
    /// Reads the header; the reader is then at the body. An API or version that is not known has no tagged fields
    /// that could be skipped, so its body must not be read.
    pub fn decode(reader: &mut Reader) -> Result<RequestHeader, WireError> {
        let mut header = RequestHeader {
            api_key: i16::from_be_bytes(reader.array()?),
            api_version: i16::from_be_bytes(reader.array()?),
            correlation_id: i32::from_be_bytes(reader.array()?),
            client_id: None,
        };
        // The client id keeps its 16 bit length even in the flexible header.
        if let Some(length) = reader.length_short(false).map_err(|error| error.at("client_id"))? {
            header.client_id = Some(reader.string(length).map_err(|error| error.at("client_id"))?);
        }
        if header.flexible() {
            reader.tagged(|_, _| Ok(false))?;
        }
        Ok(header)
    }

    /// Writes the header.
    pub fn encode(&self, writer: &mut Writer) -> Result<(), WireError> {
        writer.put(&self.api_key.to_be_bytes());
        writer.put(&self.api_version.to_be_bytes());
        writer.put(&self.correlation_id.to_be_bytes());
        writer.put_length_short(self.client_id.as_ref().map(String::len), false)?;
        writer.put(self.client_id.as_deref().unwrap_or_default().as_bytes());
        if self.flexible() {
            writer.put_uvarint(0);
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

/// What precedes the body of a response: header version 0, or 1 if the response is flexible (never for ApiVersions).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResponseHeader {
    /// The correlation id of the request.
    pub correlation_id: i32,
}

impl ResponseHeader {
    /// Reads the header of an answer to this API and version.
    pub fn decode(reader: &mut Reader, api: ApiKey, version: i16) -> Result<ResponseHeader, WireError> {
        let correlation_id = i32::from_be_bytes(reader.array()?);
        if api.response_header_flexible(version) {
            reader.tagged(|_, _| Ok(false))?;
        }
        Ok(ResponseHeader { correlation_id })
    }

    /// Writes the header of an answer to this API and version.
    pub fn encode(self, writer: &mut Writer, api: ApiKey, version: i16) {
        writer.put(&self.correlation_id.to_be_bytes());
        if api.response_header_flexible(version) {
            writer.put_uvarint(0);
        }
    }
}

/// The length of a frame, from its prefix: negative ones and those above `bytes_max` are refused.
pub fn frame_length(prefix: [u8; 4], bytes_max: usize) -> Result<usize, WireError> {
    let announced = i32::from_be_bytes(prefix);
    let length = usize::try_from(announced).map_err(|_| Fault::NegativeLength(announced))?;
    if length > bytes_max {
        return Err(Fault::TooLong(length).into());
    }
    Ok(length)
}
