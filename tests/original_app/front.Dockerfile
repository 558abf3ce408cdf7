# Its page, served as nginx' own image serves it: on port 80, with a folder for what it caches and one for its number.
ARG BASE
FROM ${BASE}

RUN mkdir -p /srv/page /var/cache/nginx && echo "the page of the original" > /srv/page/index.html
EXPOSE 80
ENTRYPOINT []
CMD ["sh", "-c", "mkdir /var/cache/nginx/client_temp && echo $$ > /var/run/nginx.pid && exec busybox httpd -f -p 80 -h /srv/page"]
