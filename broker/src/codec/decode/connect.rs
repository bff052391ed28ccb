//! CONNECT (MQTT 5.0 §3.1), of either version.

use super::reader::Reader;
use super::{DecodeError, Mqtt31, properties};
use crate::codec::packet::{Connect, Qos, Version, Will};
use crate::codec::properties::{ConnectProperties, WillProperties};

const USER_NAME: u8 = 0b1000_0000;
const PASSWORD: u8 = 0b0100_0000;
const WILL_RETAIN: u8 = 0b0010_0000;
const WILL_QOS: u8 = 0b0001_1000;
const WILL: u8 = 0b0000_0100;
const CLEAN_START: u8 = 0b0000_0010;
const RESERVED: u8 = 0b0000_0001;

/// Protocol Name and Protocol Version (§3.1.2.1, §3.1.2.2). MQTT 3.1 called itself `MQIsdp`.
pub(super) fn protocol_version(
    body: &mut Reader,
    mqtt31: Mqtt31,
) -> Result<(Version, Mqtt31), DecodeError> {
    let name = body.text()?;
    let level = body.u8()?;
    match (&*name, level) {
        ("MQTT", 4) => Ok((Version::V311, mqtt31)),
        ("MQTT", 5) => Ok((Version::V5, mqtt31)),
        ("MQIsdp", 3) if mqtt31 == Mqtt31::Accepted => Ok((Version::V311, Mqtt31::Spoken)),
        _ => Err(DecodeError::UnsupportedVersion { level }),
    }
}

/// What follows the protocol version.
pub(super) fn connect(version: Version, body: &mut Reader) -> Result<Connect, DecodeError> {
    let flags = body.u8()?;
    check_flags(version, flags)?;
    let keep_alive = body.u16()?;
    let properties = match version {
        Version::V311 => ConnectProperties::default(),
        Version::V5 => properties::connect(body)?,
    };
    let (method, data) = (
        &properties.authentication_method,
        &properties.authentication_data,
    );
    properties::check_method(method.as_ref(), data.as_ref())?;
    let client_id = body.text()?;
    let clean_start = flags & CLEAN_START != 0;
    if version == Version::V311 && client_id.is_empty() && !clean_start {
        return Err(DecodeError::EmptyClientId);
    }
    let will = match flags & WILL {
        0 => None,
        _ => Some(will(version, flags, body)?),
    };
    let user_name = match flags & USER_NAME {
        0 => None,
        _ => Some(body.text()?),
    };
    let password = match flags & PASSWORD {
        0 => None,
        _ => Some(body.binary()?),
    };
    Ok(Connect {
        version,
        clean_start,
        keep_alive,
        client_id,
        will,
        user_name,
        password,
        properties,
    })
}

fn check_flags(version: Version, flags: u8) -> Result<(), DecodeError> {
    let will_without_flag = flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0;
    let password_alone = version == Version::V311 && flags & (USER_NAME | PASSWORD) == PASSWORD;
    if flags & RESERVED != 0 || will_without_flag || password_alone || flags & WILL_QOS == WILL_QOS
    {
        return Err(DecodeError::ConnectFlags(flags));
    }
    Ok(())
}

fn will(version: Version, flags: u8, body: &mut Reader) -> Result<Will, DecodeError> {
    let qos = Qos::new((flags & WILL_QOS) >> 3).ok_or(DecodeError::ConnectFlags(flags))?;
    let properties = match version {
        Version::V311 => WillProperties::default(),
        Version::V5 => properties::will(body)?,
    };
    Ok(Will {
        topic: body.topic_name()?,
        payload: body.binary()?,
        qos,
        retain: flags & WILL_RETAIN != 0,
        properties,
    })
}
