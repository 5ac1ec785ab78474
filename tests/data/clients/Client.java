import java.io.FileInputStream;
import java.net.URI;
import java.net.http.*;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.*;

/** One request with the default trust store, or with the roots of CLIENT_ROOT where that is set. */
public class Client {
    public static void main(String[] arguments) throws Exception {
        HttpClient.Builder client = HttpClient.newBuilder();
        String root = System.getenv("CLIENT_ROOT");
        if (root != null) client.sslContext(trusting(root));
        HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[0])).header("Authorization", "Bearer " + System.getenv("OPENAI_API_KEY")).build();
        HttpResponse<String> answer = client.build().send(request, HttpResponse.BodyHandlers.ofString());
        System.out.println(answer.version() + " " + answer.body());
        System.exit(answer.statusCode() == 200 ? 0 : 1);
    }

    static SSLContext trusting(String root) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        store.setCertificateEntry("root", CertificateFactory.getInstance("X.509").generateCertificate(new FileInputStream(root)));
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context;
    }
}
