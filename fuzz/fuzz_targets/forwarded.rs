//! Whatever a client writes into the headers that proxies add to, what the trusted proxy has added is what counts.
#![no_main]

use fanwire::address::{Client, ForwardedHeader, Forwarding, TrustedProxies};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&[u8], &[u8])| {
    let (written, line_before) = input;
    let trusted = TrustedProxies::parse(&["10.0.0.0/8".to_owned()]).expect("a network");
    let proxy = Client {
        address: "10.0.0.1".parse().ok(),
        is_proxy: true,
        is_tls: false,
    };
    for (header, name, added) in [
        (ForwardedHeader::XForwardedFor, "x-forwarded-for", "192.0.2.7"),
        (
            ForwardedHeader::Forwarded,
            "forwarded",
            "for=192.0.2.7;proto=http",
        ),
        (
            ForwardedHeader::Forwarded,
            "forwarded",
            "for=\"192.0.2.7:80\";host=\"a;for=b\\\"\"",
        ),
    ] {
        let forwarding = Forwarding::new(trusted.clone(), header);
        let line = [written, b", ", added.as_bytes()].concat();
        let client = forwarding.client_of(proxy, [(name, line_before), (name, &line[..])].into_iter());
        assert_eq!(client.to_string(), "192.0.2.7");
        // By itself it may say anything, and is survived.
        let _ = forwarding.client_of(
            proxy,
            [(name, written), ("x-forwarded-proto", line_before)].into_iter(),
        );
    }
});
