#!/usr/bin/python3
"""Asks opendmarc and Python's authheaders about messages, with a DNS of their own: judges.py ZONE.json MAILS.json

Both take their DNS server from /etc/resolv.conf and ask port 53 only, so this runs itself again in name spaces of its own
(`unshare`), where resolv.conf is another file and port 53 is free. MAILS.json is a list of {file, ip, helo, mail_from};
prints one line of JSON for each: what opendmarc made of the Authentication-Results of mx.judge.example in the message, and
what authheaders found out itself.
Packages: opendmarc, publicsuffix, python3-authheaders.
"""
import json, os, re, socket, struct, subprocess, sys, tempfile, threading, time

import dns.flags, dns.message, dns.rcode, dns.rdataclass, dns.rdatatype, dns.rrset

HERE = os.path.abspath(__file__)
PATIENCE = 60


def serve(zone):
    """A DNS over UDP and TCP at 127.0.0.1:53."""
    def answer(wire):
        question = dns.message.from_wire(wire)
        reply = dns.message.make_response(question)
        reply.flags |= dns.flags.RA
        query = question.question[0]
        name = query.name.to_text().rstrip(".").lower()
        records = zone.get(name)
        if records is None:
            if not any(other.endswith("." + name) for other in zone):
                reply.set_rcode(dns.rcode.NXDOMAIN)
            return reply
        for kind, value in records:
            if kind != dns.rdatatype.to_text(query.rdtype):
                continue
            if kind == "TXT":
                value = " ".join('"%s"' % value[at:at + 255] for at in range(0, len(value), 255))
            reply.answer.append(dns.rrset.from_text(query.name, 60, "IN", kind, value))
        return reply

    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 53))
    tcp = socket.create_server(("127.0.0.1", 53))

    def packets():
        while True:
            wire, peer = udp.recvfrom(4096)
            udp.sendto(answer(wire).to_wire(max_size=4096), peer)

    def streams():
        while True:
            stream, _ = tcp.accept()
            with stream, stream.makefile("rb") as reader:
                wire = reader.read(struct.unpack("!H", reader.read(2))[0])
                out = answer(wire).to_wire()
                stream.sendall(struct.pack("!H", len(out)) + out)

    for work in (packets, streams):
        threading.Thread(target=work, daemon=True).start()


class Milter:
    """One message through a milter; gives the fields that it adds."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.reader = self.socket.makefile("rb")
        # Version 6; it may add fields; no step is left out.
        self.send(b"O", struct.pack("!III", 6, 0x1FF, 0))
        assert self.read()[:1] == b"O"

    def send(self, command, data=b""):
        self.socket.sendall(struct.pack("!I", len(data) + 1) + command + data)

    def read(self):
        return self.reader.read(struct.unpack("!I", self.reader.read(4))[0])

    def step(self, command, data=b""):
        self.send(command, data)
        added = []
        while True:
            said = self.read()
            if said[:1] in (b"h", b"i"):
                name, value = said[5 if said[:1] == b"i" else 1:].rstrip(b"\0").split(b"\0", 1)
                added.append((name.decode(), value.decode()))
            elif said[:1] in (b"c", b"a", b"r", b"t", b"d", b"y"):
                return said[:1].decode(), added

    def message(self, mail, content):
        text = lambda value: value.encode() + b"\0"
        address = struct.pack("!H", 2525) + text(mail["ip"])
        self.step(b"C", text(mail["helo"]) + b"4" + address)
        self.step(b"H", text(mail["helo"]))
        self.step(b"M", text("<%s>" % mail["mail_from"]))
        self.step(b"R", text("<judge@judge.example>"))
        head, _, body = content.partition(b"\r\n\r\n")
        for field in re.split(rb"\r\n(?![ \t])", head):
            name, _, value = field.partition(b":")
            self.step(b"L", name + b"\0" + value.lstrip(b" ").replace(b"\r\n", b"\n") + b"\0")
        self.step(b"N")
        self.step(b"B", body)
        return self.step(b"E")


def opendmarc(folder):
    """Starts it; gives the process and its port."""
    port = 8893
    with open(folder + "/opendmarc.conf", "w") as file:
        file.write("Socket inet:%d@127.0.0.1\nBackground no\nSyslog no\nAuthservID opendmarc.judge.example\n"
                   "TrustedAuthservIDs mx.judge.example\nSPFIgnoreResults true\nSPFSelfValidate true\nRejectFailures false\n"
                   "PublicSuffixList /usr/share/publicsuffix/public_suffix_list.dat\n" % port)
    process = subprocess.Popen(["opendmarc", "-f", "-c", folder + "/opendmarc.conf"])
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return process, port
        except OSError:
            time.sleep(0.05)
    raise SystemExit("opendmarc does not start")


def words(text):
    """The methods and their results in a field's value, in order."""
    return re.findall(r"(?<![.\w])(spf|dkim|dmarc|arc)=([a-z]+)", text)


def main():
    zone, mails = [json.load(open(name)) for name in sys.argv[1:3]]
    if len(sys.argv) == 3:
        os.execvp("unshare", ["unshare", "--map-root-user", "--mount", "--net", sys.executable, HERE, *sys.argv[1:3], "inside"])
    folder = tempfile.mkdtemp()
    with open(folder + "/resolv.conf", "w") as file:
        file.write("nameserver 127.0.0.1\n")
    subprocess.check_call(["ip", "link", "set", "lo", "up"])
    subprocess.check_call(["mount", "--bind", folder + "/resolv.conf", os.path.realpath("/etc/resolv.conf")])
    serve(zone)
    import authheaders  # It reads resolv.conf.
    process, port = opendmarc(folder)
    try:
        for mail in mails:
            content = open(mail["file"], "rb").read().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
            _, added = Milter(port).message(mail, content)
            told = [value for name, value in added if name == "Authentication-Results"]
            found = authheaders.authenticate_message(content, "authheaders.judge.example", spf=True, dkim=True, dmarc=True,
                                                     ip=mail["ip"], mail_from=mail["mail_from"], helo=mail["helo"])
            print(json.dumps({"opendmarc": words(" ".join(told)), "authheaders": words(found)}))
    finally:
        process.kill()


main()
