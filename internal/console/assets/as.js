// A request to install, as a command and as a file. Secrets are left out of both.

const secrets = (vendor) => vendor.config_fields.filter((f) => f.type === "secret").map((f) => f.key);

// asCurl returns the command that sends a request. The text between the two EOF is
// expanded by the shell, so what is special there is escaped, except for the variables.
export function asCurl(origin, vendor, request) {
  const config = { ...request.config }, variables = [];
  for (const key of secrets(vendor)) {
    if (!(key in config)) continue;
    variables.push(key.toUpperCase());
    config[key] = "\u0000" + key.toUpperCase();
  }
  const text = JSON.stringify({ ...request, config }, null, 2).replace(/[\\`$]/g, (c) => "\\" + c);
  const filled = variables.reduce((t, v) => t.replace("\\\\u0000" + v, "$" + v), text);
  return `curl -X POST ${origin}/v1/admin/integration-catalog/${vendor.key}/install \\
  -H "Authorization: Bearer $BRIDGE_TOKEN" \\
  -H "Content-Type: application/json" \\
  -d @- <<EOF
${filled}
EOF`;
}

const scalar = (v) => /^[A-Za-z][A-Za-z0-9_.-]*$/.test(v) && !/^(true|false|null|yes|no|on|off|y|n)$/i.test(v) ? v : JSON.stringify(v);

// asYAML returns the same integration for the configuration.
export function asYAML(slug, vendor, request) {
  const out = ["integrations:", "  " + scalar(slug) + ":"], topics = request.source && request.source.topics;
  if (topics) out.push("    kafka: {topics: [" + topics.map(scalar).join(", ") + "]}");
  out.push("    zerobus:");
  for (const [key, value] of Object.entries(request.config)) {
    if (secrets(vendor).includes(key)) out.push("      " + key + "_file: /run/secrets/" + slug + "-" + key.replaceAll("_", "-"));
    else if (value !== "") out.push("      " + key + ": " + scalar(value));
  }
  if (request.variant) out.push("    mapping: {variant: " + scalar(request.variant) + "}");
  return out.join("\n");
}
