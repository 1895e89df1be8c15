//! The tables of messages: one row per field, in the protocol's words.
//!
//! ```text
//! struct FetchRequest, versions "4-18", flexible "12+" {        a message: has versions
//!     replica_id: i32 = -1, "4-14";                            name: type = default, versions
//!     cluster_id: Option<String>, "12+", tag 0, ignorable;     options: tag, nullable, ignorable
//! }
//! struct FetchTopic { ... }                                    a part of messages: has the version of its message
//! ```
//!
//! - `Option` is a nullable field. `nullable "1+"` restricts the versions in which null is allowed. The default is
//!   null, whatever the protocol says: an error message that was not set is absent, not empty.
//! - `ignorable`: a version without the field drops its value. Otherwise such a version refuses every value but the
//!   default ([`Fault::NotCarried`]).
//! - `tag`: the field is one of the tagged fields, and is left out if it has its default.

use crate::decoder::Decoder;
use crate::encoder::Encoder;
use crate::fault::{Fault, WireError};
use crate::field::{Field, Form};
use crate::versions::Versions;

/// One row of a table: a field without its type and default.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    name: &'static str,
    versions: Versions,
    nullable: Versions,
    tag: Option<u32>,
    ignorable: bool,
}

impl Row {
    pub(crate) const fn new(name: &'static str, versions: &str) -> Row {
        let versions = Versions::parse(versions);
        Row { name, versions, nullable: Versions::ALL, tag: None, ignorable: false }
    }

    pub(crate) const fn nullable(self, versions: &str) -> Row {
        Row { nullable: Versions::parse(versions), ..self }
    }

    pub(crate) const fn tag(self, tag: u32) -> Row {
        Row { tag: Some(tag), ..self }
    }

    pub(crate) const fn ignorable(self) -> Row {
        Row { ignorable: true, ..self }
    }

    /// Whether the field is in the body of this form.
    const fn in_body(self, form: Form) -> bool {
        self.tag.is_none() && self.versions.contains(form.version)
    }

    /// Whether the field may be among the tagged fields of this form.
    const fn in_tags(self, form: Form) -> bool {
        self.tag.is_some() && form.flexible && self.versions.contains(form.version)
    }

    /// The least number of bytes that the field takes in the body.
    pub(crate) fn size_min<T: Field>(self, form: Form) -> usize {
        if self.in_body(form) { T::size_min(form) } else { 0 }
    }

    /// Decodes the field if it is in the body.
    pub(crate) fn read<T: Field>(
        self,
        value: &mut T,
        decoder: &mut Decoder,
        form: Form,
    ) -> Result<(), WireError> {
        if self.in_body(form) {
            *value = self.value(decoder, form).map_err(|error| error.at(self.name))?;
        }
        Ok(())
    }

    /// Decodes the field if `tag` is its tag. Returns whether it is.
    pub(crate) fn read_tagged<T: Field>(
        self,
        value: &mut T,
        decoder: &mut Decoder,
        tag: u32,
        form: Form,
    ) -> Result<bool, WireError> {
        let known = self.tag == Some(tag) && self.in_tags(form);
        if known {
            *value = self.value(decoder, form).map_err(|error| error.at(self.name))?;
        }
        Ok(known)
    }

    /// Encodes the field if it is in the body. Refuses a value that the version cannot carry.
    pub(crate) fn write<T: Field>(
        self,
        value: &T,
        default: fn() -> T,
        encoder: &mut Encoder,
        form: Form,
    ) -> Result<(), WireError> {
        if self.in_body(form) {
            self.check_null(value, form)?;
            return value.write(encoder, form).map_err(|error| error.at(self.name));
        }
        if self.ignorable || self.in_tags(form) || *value == default() {
            return Ok(());
        }
        Err(WireError { field: self.name, fault: Fault::NotCarried { version: form.version } })
    }

    /// Collects the field if it is a tagged field and not the default.
    // Whether a row has a tag is known when this is compiled, and few have one.
    #[inline(always)]
    pub(crate) fn write_tagged<T: Field>(
        self,
        value: &T,
        default: fn() -> T,
        tagged: &mut Tagged,
        form: Form,
    ) -> Result<(), WireError> {
        match self.tag {
            Some(tag) => self.collect(tag, value, default, tagged, form),
            None => Ok(()),
        }
    }

    fn collect<T: Field>(
        self,
        tag: u32,
        value: &T,
        default: fn() -> T,
        tagged: &mut Tagged,
        form: Form,
    ) -> Result<(), WireError> {
        if !self.in_tags(form) || *value == default() {
            return Ok(());
        }
        self.check_null(value, form)?;
        let mut encoder = Encoder::new();
        value.write(&mut encoder, form).map_err(|error| error.at(self.name))?;
        tagged.0.push((tag, encoder));
        Ok(())
    }

    fn value<T: Field>(self, decoder: &mut Decoder, form: Form) -> Result<T, WireError> {
        let value = T::read(decoder, form)?;
        self.check_null(&value, form)?;
        Ok(value)
    }

    fn check_null<T: Field>(self, value: &T, form: Form) -> Result<(), WireError> {
        if value.is_null() && !self.nullable.contains(form.version) {
            return Err(WireError { field: self.name, fault: Fault::Null { version: form.version } });
        }
        Ok(())
    }
}

/// The tagged fields of one structure, encoded.
#[derive(Default)]
pub(crate) struct Tagged(Vec<(u32, Encoder)>);

impl Tagged {
    /// Appends them in the order of their tags, as the protocol demands.
    pub(crate) fn write(mut self, encoder: &mut Encoder) -> Result<(), WireError> {
        self.0.sort_by_key(|(tag, _)| *tag);
        encoder.put_uvarint(self.0.len() as u32);
        for (tag, field) in self.0 {
            let size = u32::try_from(field.len()).map_err(|_| Fault::TooLong(field.len()))?;
            encoder.put_uvarint(tag);
            encoder.put_uvarint(size);
            encoder.append(field);
        }
        Ok(())
    }
}

/// Checks the version of a message, and returns its form.
pub(crate) fn form(version: i16, versions: Versions, flexible: Versions) -> Result<Form, WireError> {
    if !versions.contains(version) {
        return Err(Fault::Version { version, supported: versions }.into());
    }
    Ok(Form { version, flexible: flexible.contains(version) })
}

/// Makes structures of tables; the docs of this file explain the rows.
macro_rules! messages {
    ($(
        $(#[$doc:meta])*
        struct $name:ident $(, versions $versions:literal, flexible $flexible:literal)? {
            $(
                $(#[$field_doc:meta])*
                $field:ident: $type:ty $(= $default:expr)?, $carried:literal
                    $(, $option:ident $($argument:literal)?)*;
            )*
        }
    )*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name {
            $(
                $(#[$field_doc])*
                #[doc = concat!("Versions ", $carried, $(", ", stringify!($option $($argument)?),)* ".")]
                pub $field: $type,
            )*
        }

        impl $name {
            $(
                #[allow(non_upper_case_globals, reason = "a row is called as its field")]
                const $field: crate::table::Row =
                    crate::table::Row::new(stringify!($field), $carried)$(.$option($($argument)?))*;
            )*
        }

        impl Default for $name {
            fn default() -> Self {
                #[allow(unused_mut, reason = "only some tables have defaults of their own")]
                let mut value = Self { $($field: Default::default(),)* };
                $($(value.$field = $default;)?)*
                value
            }
        }

        impl crate::field::Field for $name {
            fn size_min(form: crate::field::Form) -> usize {
                usize::from(form.flexible) $(+ Self::$field.size_min::<$type>(form))*
            }

            fn read(
                decoder: &mut crate::decoder::Decoder,
                form: crate::field::Form,
            ) -> Result<Self, crate::fault::WireError> {
                let mut value = Self::default();
                $(Self::$field.read(&mut value.$field, decoder, form)?;)*
                if form.flexible {
                    decoder.tagged(|decoder, tag| {
                        Ok($(Self::$field.read_tagged(&mut value.$field, decoder, tag, form)? ||)* false)
                    })?;
                }
                Ok(value)
            }

            fn write(
                &self,
                encoder: &mut crate::encoder::Encoder,
                form: crate::field::Form,
            ) -> Result<(), crate::fault::WireError> {
                $(Self::$field.write(&self.$field, || Self::default().$field, encoder, form)?;)*
                if form.flexible {
                    let mut tagged = crate::table::Tagged::default();
                    $(Self::$field.write_tagged(&self.$field, || Self::default().$field, &mut tagged, form)?;)*
                    tagged.write(encoder)?;
                }
                Ok(())
            }
        }

        #[cfg(test)]
        impl crate::sample::Sample for $name {
            fn sample(entropy: &mut crate::sample::Entropy<'_>, form: crate::field::Form) -> Self {
                let mut value = Self::default();
                $(value.$field = Self::$field.sample(value.$field, entropy, form);)*
                value
            }
        }

        $(impl crate::message::Message for $name {
            const VERSIONS: crate::versions::Versions = crate::versions::Versions::parse($versions);
            const FLEXIBLE: crate::versions::Versions = crate::versions::Versions::parse($flexible);

            fn decode(decoder: &mut crate::decoder::Decoder, version: i16) -> Result<Self, crate::fault::WireError> {
                let form = crate::table::form(version, Self::VERSIONS, Self::FLEXIBLE)?;
                crate::field::Field::read(decoder, form)
            }

            fn encode(
                &self,
                encoder: &mut crate::encoder::Encoder,
                version: i16,
            ) -> Result<(), crate::fault::WireError> {
                let form = crate::table::form(version, Self::VERSIONS, Self::FLEXIBLE)?;
                crate::field::Field::write(self, encoder, form)
            }
        })?
    )*};
}

pub(crate) use messages;

#[cfg(test)]
impl Row {
    /// A value that this form can carry; the default where it carries none.
    pub(crate) fn sample<T: Field + crate::sample::Sample>(
        self,
        default: T,
        entropy: &mut crate::sample::Entropy<'_>,
        form: Form,
    ) -> T {
        if !self.in_body(form) && !self.in_tags(form) {
            return default;
        }
        let value = T::sample(entropy, form);
        if self.check_null(&value, form).is_err() { T::sample_some(entropy, form) } else { value }
    }
}
