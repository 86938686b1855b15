//! Trace context of a caller: the `traceparent` header of the W3C recommendation, read strictly. A header that is
//! wrong is as good as none, as the recommendation demands: the call goes on in a trace of its own.
//!
//! `tracestate` is not read: nothing here adds to it, and a span's parent is fully named without it.

use http::HeaderMap;
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState},
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Name of the header.
pub const TRACEPARENT: &str = "traceparent";

/// Bytes of a `traceparent` of version 00, and of the part of later versions that is read.
const LENGTH: usize = 55;

/// Makes the caller's span, if it names one, the parent of `span`, and writes its trace id into the span's field
/// `trace_id` so that the log carries it. Costs nothing if the span is disabled.
pub fn adopt_parent(span: &Span, headers: &HeaderMap) {
    if span.is_disabled() {
        return;
    }
    let Some(parent) = from_headers(headers) else {
        return;
    };
    span.record("trace_id", tracing::field::display(parent.trace_id()));
    // It fails only where no tracer listens, and then nobody misses the parent.
    let _ = span.set_parent(Context::new().with_remote_span_context(parent));
}

/// The caller's span, if exactly one is named and well-formed.
pub fn from_headers(headers: &HeaderMap) -> Option<SpanContext> {
    let mut values = headers.get_all(TRACEPARENT).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => parse(value.as_bytes()),
        _ => None,
    }
}

/// Reads `version "-" trace-id "-" parent-id "-" flags`, all in lower-case hexadecimal.
fn parse(value: &[u8]) -> Option<SpanContext> {
    let fields: &[u8; LENGTH] = value.first_chunk()?;
    let [version] = hex(&fields[..2])?;
    let well_formed_end = match version {
        0 => value.len() == LENGTH,
        0xff => false,
        // A later version may append fields, each behind a dash.
        _ => value.get(LENGTH).is_none_or(|&byte| byte == b'-'),
    };
    if !well_formed_end || [2, 35, 52].iter().any(|&at| fields[at] != b'-') {
        return None;
    }
    let [flags] = hex(&fields[53..])?;
    let context = SpanContext::new(
        TraceId::from_bytes(hex(&fields[3..35])?),
        SpanId::from_bytes(hex(&fields[36..52])?),
        // The other flags are for later versions, to be ignored until then.
        TraceFlags::new(flags) & TraceFlags::SAMPLED,
        true,
        TraceState::NONE,
    );
    context.is_valid().then_some(context)
}

/// Decodes `2 * N` lower-case hexadecimal digits.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use opentelemetry::trace::TracerProvider as _;
    use opentelemetry_sdk::trace::SdkTracerProvider;
    use proptest::prelude::*;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    const EXAMPLE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_example_of_the_recommendation_is_read() {
        let context = parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(
            context.trace_id().to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert_eq!(context.span_id().to_string(), "b7ad6b7169203331");
        assert!(context.is_sampled() && context.is_remote());
    }

    #[test]
    fn what_is_not_well_formed_is_ignored() {
        for value in [
            "",
            "00",
            "00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0",
            "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.what",
        ] {
            assert!(parse(value.as_bytes()).is_none(), "{value}");
        }
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let value = "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff-more";
        let context = parse(value.as_bytes()).unwrap();
        assert_eq!(context.trace_flags(), TraceFlags::SAMPLED);
    }

    #[test]
    fn two_parents_are_none() {
        let mut headers = HeaderMap::new();
        assert!(from_headers(&headers).is_none());
        headers.append(TRACEPARENT, HeaderValue::from_static(EXAMPLE));
        assert!(from_headers(&headers).is_some());
        headers.append(TRACEPARENT, HeaderValue::from_static(EXAMPLE));
        assert!(from_headers(&headers).is_none());
    }

    #[test]
    fn a_span_joins_the_trace_of_its_caller() {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let subscriber = tracing_subscriber::registry().with(layer);
        let mut headers = HeaderMap::new();
        headers.append(TRACEPARENT, HeaderValue::from_static(EXAMPLE));
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("call", trace_id = tracing::field::Empty);
            adopt_parent(&span, &headers);
            let joined = span.context().span().span_context().trace_id();
            assert_eq!(joined.to_string(), "0af7651916cd43dd8448eb211c80319c");
        });
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(value in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&value);
        }

        #[test]
        fn what_was_written_is_read(trace in 1u128.., span in 1u64.., flags: u8) {
            let value = format!("00-{trace:032x}-{span:016x}-{flags:02x}");
            let context = parse(value.as_bytes()).unwrap();
            prop_assert_eq!(context.trace_id().to_bytes(), trace.to_be_bytes());
            prop_assert_eq!(context.span_id().to_bytes(), span.to_be_bytes());
            prop_assert_eq!(context.is_sampled(), flags & 1 == 1);
        }

        #[test]
        fn one_changed_byte_is_read_as_itself_or_refused(at in 0..LENGTH, byte in 0x20u8..0x7f) {
            let mut value = EXAMPLE.as_bytes().to_vec();
            value[at] = byte;
            if let Some(context) = parse(&value) {
                let text = format!(
                    "{}-{}-{}",
                    std::str::from_utf8(&value[..2]).unwrap(),
                    context.trace_id(),
                    context.span_id(),
                );
                prop_assert!(value.starts_with(text.as_bytes()));
            }
        }
    }
}
