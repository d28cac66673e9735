// The service config of gRPC: which calls are retried, and how calls are spread over several servers.
import shared from "./gen/service_config.json" with { type: "json" };

/** For an address with several servers: calls take turns. grpc-js cannot ask each whether it is ready. */
const SPREAD = { loadBalancingConfig: [{ round_robin: {} }] };

/** As JSON. `dns:///HOST:PORT` stands for all addresses of that name, `ipv4:A:PORT,B:PORT` for both. */
export function serviceConfig(server: string): string {
  const isSpread = /^dns:\/\/|^ipv[46]:.*,/.test(server);
  return JSON.stringify(isSpread ? { ...shared, ...SPREAD } : shared);
}
