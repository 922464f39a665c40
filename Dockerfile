# One image for every role: `docker run … jobmanager`, `docker run … taskmanager`.
FROM node:22.12.0-bookworm-slim AS build
WORKDIR /build
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts
COPY . .
RUN npm run build && npm prune --omit=dev --ignore-scripts

FROM node:22.12.0-bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends curl tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 9999 --create-home millrace \
    && install -d -o millrace /var/lib/millrace
WORKDIR /opt/millrace
COPY --from=build /build/package.json ./
COPY --from=build /build/node_modules ./node_modules
COPY --from=build /build/dist ./dist
COPY --from=build /build/config ./config
USER millrace
ENV NODE_ENV=production
# tini reaps children and passes SIGTERM on, so that a stopped leader hands over at once.
ENTRYPOINT ["tini", "--", "node", "/opt/millrace/dist/src/main/cli.js"]
CMD ["--help"]
