//! SQLite's values as parameters and results of PostgreSQL, in its binary format.

use bytes::{BufMut, BytesMut};
use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use tokio_postgres::types::{self, IsNull, Type};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A parameter. It is encoded for the type that the server inferred.
#[derive(Debug)]
pub(super) struct Parameter(Value);

impl Parameter {
    pub(super) fn of(value: &dyn ToSql) -> Result<Self, rusqlite::Error> {
        Ok(Self(match value.to_sql()? {
            ToSqlOutput::Owned(value) => value,
            ToSqlOutput::Borrowed(value) => Value::try_from(value)
                .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?,
            _ => return Err(rusqlite::Error::InvalidQuery),
        }))
    }
}

impl types::ToSql for Parameter {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, BoxError> {
        encode(ValueRef::from(&self.0), ty, out)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    types::to_sql_checked!();
}

/// A parameter that borrows its value.
#[derive(Debug)]
pub(super) struct Borrowed<'a>(pub(super) ValueRef<'a>);

impl types::ToSql for Borrowed<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, BoxError> {
        encode(self.0, ty, out)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    types::to_sql_checked!();
}

/// Appends a value in the binary format of a type.
///
/// # Errors
/// The value does not exist in the type.
pub(crate) fn encode(value: ValueRef<'_>, ty: &Type, out: &mut BytesMut) -> Result<IsNull, BoxError> {
    match (value, ty) {
        (ValueRef::Null, _) => return Ok(IsNull::Yes),
        (ValueRef::Integer(number), &Type::INT8) => out.put_i64(number),
        (ValueRef::Integer(number), &Type::INT4) => out.put_i32(i32::try_from(number)?),
        (ValueRef::Integer(number), &Type::INT2) => out.put_i16(i16::try_from(number)?),
        (ValueRef::Integer(number), &Type::BOOL) => out.put_u8(u8::from(number != 0)),
        // The server adapts a number next to a column of type real; integers up to 2^53 are exact.
        #[allow(clippy::cast_precision_loss)]
        (ValueRef::Integer(number), &Type::FLOAT8) => out.put_f64(number as f64),
        (ValueRef::Integer(number), ty) if is_text(ty) => out.put_slice(number.to_string().as_bytes()),
        // SQLite stores -0.0 as 0.0.
        (ValueRef::Real(number), &Type::FLOAT8) => out.put_f64(number + 0.0),
        (ValueRef::Real(number), ty) if is_text(ty) => out.put_slice(number.to_string().as_bytes()),
        (ValueRef::Text(text), ty) if is_text(ty) => out.put_slice(text),
        (ValueRef::Text(bytes) | ValueRef::Blob(bytes), &Type::BYTEA) => out.put_slice(bytes),
        (value, ty) => return Err(format!("a value of type {} is no {ty}", value.data_type()).into()),
    }
    Ok(IsNull::No)
}

fn is_text(ty: &Type) -> bool {
    [Type::TEXT, Type::VARCHAR, Type::NAME, Type::BPCHAR, Type::UNKNOWN].contains(ty)
}

/// A value of a result.
pub(super) struct Cell(pub(super) Value);

impl<'a> types::FromSql<'a> for Cell {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, BoxError> {
        let value = match *ty {
            Type::BOOL => Value::Integer(i64::from(raw.first().is_some_and(|byte| *byte != 0))),
            Type::INT8 => Value::Integer(i64::from_sql(ty, raw)?),
            Type::INT4 => Value::Integer(i32::from_sql(ty, raw)?.into()),
            Type::INT2 => Value::Integer(i16::from_sql(ty, raw)?.into()),
            Type::OID => Value::Integer(u32::from_sql(ty, raw)?.into()),
            Type::FLOAT8 => Value::Real(f64::from_sql(ty, raw)?),
            Type::FLOAT4 => Value::Real(f32::from_sql(ty, raw)?.into()),
            Type::NUMERIC => numeric(raw)?,
            Type::BYTEA => Value::Blob(raw.to_vec()),
            Type::VOID => Value::Null,
            ref ty if is_text(ty) => Value::Text(std::str::from_utf8(raw)?.to_owned()),
            ref ty => return Err(format!("a result of type {ty} is not supported").into()),
        };
        Ok(Self(value))
    }

    fn from_sql_null(_: &Type) -> Result<Self, BoxError> {
        Ok(Self(Value::Null))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

/// A number of arbitrary precision, such as the sum of 64-bit integers: an integer if it is one and has 64 bits, otherwise
/// a real. The format is four 16-bit words (digits, weight of the first, sign, scale) and the digits to base 10,000.
fn numeric(raw: &[u8]) -> Result<Value, BoxError> {
    let word = |index: usize| -> Result<i16, BoxError> {
        let bytes = raw.get(index * 2..index * 2 + 2).ok_or("a number is cut")?;
        Ok(i16::from_be_bytes([bytes[0], bytes[1]]))
    };
    let (digits, weight, sign) = (word(0)?, word(1)?, word(2)?.cast_unsigned());
    if sign >= 0xC000 {
        return Ok(Value::Null);
    }
    let negative = sign == 0x4000;
    let is_whole = digits <= weight.saturating_add(1);
    let mut integer = Some(0_i128);
    let mut real = 0_f64;
    for index in 0..digits {
        let digit = word(4 + usize::try_from(index)?)?;
        integer = integer
            .and_then(|number| number.checked_mul(10_000))
            .and_then(|number| number.checked_add(digit.into()));
        real += f64::from(digit) * 10_000_f64.powi((weight - index).into());
    }
    for _ in digits..weight.saturating_add(1) {
        integer = integer.and_then(|number| number.checked_mul(10_000));
    }
    let signed = integer.map(|number| if negative { -number } else { number });
    Ok(match signed.and_then(|number| i64::try_from(number).ok()) {
        Some(number) if is_whole => Value::Integer(number),
        _ => Value::Real(if negative { -real } else { real }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to_bytes(words: &[i16]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn numbers_of_arbitrary_precision_are_integers_where_they_fit() {
        for (raw, expected) in [
            (to_bytes(&[0, 0, 0, 0]), Value::Integer(0)),
            (to_bytes(&[1, 0, 0, 0, 7]), Value::Integer(7)),
            // 30,000 has one digit of weight 1.
            (to_bytes(&[1, 1, 0x4000, 0, 3]), Value::Integer(-30_000)),
            (to_bytes(&[2, 1, 0, 0, 1, 2345]), Value::Integer(12_345)),
            (to_bytes(&[2, 0, 0, 1, 1, 5000]), Value::Real(1.5)),
            (to_bytes(&[1, 5, 0, 0, 1]), Value::Real(1e20)),
        ] {
            assert_eq!(numeric(&raw).unwrap(), expected);
        }
        assert!(numeric(&[0]).is_err());
    }

    #[test]
    fn values_are_encoded_for_the_type_of_the_parameter() {
        let encoded = |value: Value, ty: &Type| {
            let mut out = BytesMut::new();
            encode(ValueRef::from(&value), ty, &mut out).map(|_| out.to_vec())
        };
        assert_eq!(
            encoded(Value::Integer(1), &Type::INT8).unwrap(),
            1_i64.to_be_bytes()
        );
        assert_eq!(encoded(Value::Integer(1), &Type::TEXT).unwrap(), b"1");
        assert!(encoded(Value::Integer(1 << 40), &Type::INT4).is_err());
        assert!(encoded(Value::Text("1".into()), &Type::INT8).is_err());
    }
}
